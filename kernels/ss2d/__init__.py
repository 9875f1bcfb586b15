"""VMamba's SS2D: projections, four selective scans and their merge, fused.

This is the glossary of the Triton kernels: the sizes, tensors and terms used in this folder.

The scan, for one direction, channel and state, with step Δ, state h and n counting states:

    Δ_t = softplus(dt_proj · low_rank_t + bias)    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t
    y_t = Σ_n C_t h_t + Ds x_t                     out  = the sum of y over the four directions

**Directions** (k or K): 0 rows, 1 columns, 2 rows reversed, 3 columns reversed. Directions 2 and 3 use the
same chunks and tiles as 0 and 1, and walk them from last to first.

**Sizes**, in elements:

    L         positions of a sequence: height · width
    D         channels: d_inner, padded to an even number with a channel of zeros
    N         d_state, states per channel
    RANK      inner size of dt_proj's product: dt_rank padded to a power of two of at least 16; above 64
              (float32: 32) padded to a multiple of 16 and multiplied in slices of 16, SLICE
    KW        block: outputs of x_proj per pixel and direction, dt_rank + 2 N padded to a multiple of 8
    T         positions of a tile: 16
    LANES     lanes of a warp: 32
    BLOCK     channels of a program: 64, two per lane
    tiles     tiles of a chunk: 1 to 8 by rule (`tiles_per_chunk`), 1 to 16 by tuning
    chunks    chunks of a sequence: ⌈L / (T · tiles)⌉; the last may have fewer tiles

**Partitioning.** A *tile* is T consecutive positions of one sequence, a *chunk* is `tiles` consecutive tiles,
a *channel block* is BLOCK channels. One program is one warp and processes one chunk of one channel block. A
*word* is two adjacent channels, loaded together: 4 bytes for 16-bit types, 8 for float32. Each lane owns one
word of each position, so a tile of words is (T, LANES). It is split into the *low* (even) and the *high*
(odd) channels, (T, LANES) float32 each: the two *halves*. A tile is *interior* if all its positions exist
and, for columns, are in one column; other tiles cross an *edge*.

**Tensors** in memory. `*` is the dtype of x; x, bc, y and out are read and written as words; pixels is
batch · height · width, row by row.

    x           (pixels, D)               *         the input
    p, bc       (pixels, 4, KW)           *         x_proj's output, one block per direction: dt_rank low-rank
                                                    steps, zeros, then an interleaved (B, C) pair per state.
                                                    p addresses elements, bc addresses words: (B, C) pairs
    weight      (4, 2, D / 2, RANK)       *         dt_proj's weights of the even, then of the odd channels
    bias        (4, D)                    float32   dt_proj's bias
    a           (4, N, D)                 float32   A · log2(e), where A = −exp(A_logs): decays by exp2
    skip        (D)                       float32   Ds summed over the directions; added with direction 0
    sum         (batch, 4, chunks, D)     float32   Σ Δ over each chunk; for N = 1 its decay
    end         (batch, 4, chunks, N, D)  float32   state at each chunk's end if 0 enters it
    entering    (batch, 4, chunks, N, D)  float32   state that enters each chunk; for N > 1, the output
                                                    kernels overwrite it with the running state
    passed      (batch, 2, ⌈L / T⌉, 2, D) float32   N = 1: decay and end state from 0 of what a chunk's
                                                    direction 2 or 3 passes before each tile; as words
    y           (pixels, D)               float32   sum over the directions so far; for float32, same as `out`
    out         (pixels, D)               *         the result, rounded once

**Passes**, in launch order; grids are (chunks, channel blocks, sequences) except for the carry:

    x_proj      one matrix product            x ─> p
    summary     N = 1: one launch, 2 · batch  x, p ─> sum, end, passed
                sequences, both directions of
                a tile at once; N > 1: one
                launch
                per direction, batch sequences
    carry       grid (⌈N D / 16 or 32⌉,       sum, end ─> entering: exclusive scan over chunks of
                4 · batch)                    h ← exp2(a · sum) h + end
    output      N = 1: rows (0 and 2), then   x, p, entering, passed ─> y; with direction 3 ─> out
                columns (1 and 3); N > 1: one
                launch per direction

**Constants of a kernel**: V, a `Variant` with D, KW, N, RANK; ELEMENT, the dtype of x; EDGES, whether any
tile of the launch may cross an edge; and FEW_ROWS, whether the image has fewer than T rows, so that a tile by
columns may span several columns. K is the direction; COLUMNS is 1 for directions 1 and 3; HALF is 0 for the
low channels and 1 for the high ones; INTERIOR is whether the tile is known to be interior.

**Bundles** inside a kernel: `Inputs`, the inputs of both passes for one image; `Place`, the positions of a
tile; for N = 1 also `Direction`, the values read once per direction, and `Outputs`.

**Files**, in reading order: `op` checks and dispatches; `reference` is the oracle and `vectorized` the
`torch` backend. In the `triton` backend, `fused` launches, `packing` lays out parameters and `chunks`
partitions sequences; `tile` and `steps` contain the work of both passes on one tile; `single_state` and
`many_states` are the summary and output kernels for N = 1 and N > 1, with `carry` between them.
"""

from vlmprof.kernels.ss2d.op import ss2d

__all__ = ["ss2d"]
