"""SS2D of VMamba: projections, four selective scans and their merge, fused.

The glossary of the Triton kernels: what each size, tensor and word means in every file of this folder.

The scan, for one direction, channel and state, with Δ the step, h the state and n the states:

    Δ_t = softplus(dt_proj · low_rank_t + bias)    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t
    y_t = Σ_n C_t h_t + Ds x_t                     out  = the sum of y over the four directions

**Directions** (k or K): 0 rows, 1 columns, 2 rows reversed, 3 columns reversed. 2 and 3 cut the sequences of
0 and 1 into the same chunks and tiles, and walk them from the last to the first.

**Sizes**, in elements:

    L         positions of a sequence: height · width
    D         channels: d_inner, made even by a channel of zeros
    N         d_state, states per channel
    RANK      inner size of dt_proj's product: dt_rank made a power of two of at least 16; past 64 (float32:
              past 32) a multiple of 16, multiplied in slices of 16, SLICE
    KW        block: outputs of x_proj per pixel and direction, dt_rank + 2 N made a multiple of 8
    T         positions of a tile: 16
    LANES     lanes of a warp: 32
    BLOCK     channels of a program: 64, two for each lane
    tiles     tiles of a chunk: 1 to 8 by rule (`tiles_per_chunk`), 1 to 16 by tuning
    chunks    chunks of a sequence: ⌈L / (T · tiles)⌉; the last may have fewer tiles

**How the work is cut.** A *tile* is T consecutive positions of one sequence, a *chunk* is `tiles`
consecutive tiles, a *channel block* is BLOCK channels. One program is one warp and takes one chunk of
one channel block. A *word* is two neighbouring channels, loaded together: 4 bytes for 16-bit types, 8 for
float32. Each lane owns one word of each position, so a tile of words is (T, LANES), which is taken
apart into the *low* (even) and the *high* (odd) channels, (T, LANES) float32 each: the two *halves*. A tile
is *interior* when all its positions exist and, by columns, lie in one column; others reach over an *edge*.

**Tensors** in memory. `*` is the dtype of x; x, bc, y and out are read and written as words; pixels is
batch · height · width, row by row.

    x           (pixels, D)               *         the input
    p, bc       (pixels, 4, KW)           *         x_proj's output, one block per direction: dt_rank low-rank
                                                    steps, zeros, then B and C of each state side by side.
                                                    p reads it by element, bc by word: one (B, C) pair
    weight      (4, 2, D / 2, RANK)       *         dt_proj's weights of the even, then of the odd channels
    bias        (4, D)                    float32   dt_proj's bias
    a           (4, N, D)                 float32   A · log2(e), where A = −exp(A_logs): decays by exp2
    skip        (D)                       float32   Ds summed over the directions; added with direction 0
    sum         (batch, 4, chunks, D)     float32   Σ Δ over each chunk
    end         (batch, 4, chunks, N, D)  float32   state at each chunk's end when 0 entered it
    entering    (batch, 4, chunks, N, D)  float32   state that enters each chunk; for N > 1 the output
                                                    kernels overwrite it with the running state
    y           (pixels, D)               float32   the sum over the directions so far; is `out` for float32
    out         (pixels, D)               *         the result, rounded once

**Passes**, in the order of launch; each grid is (chunks, channel blocks, sequences) but for the carry's:

    x_proj      one matrix product            x ─> p
    summary     N = 1: one launch, 4 · batch  x, p ─> sum, end
                sequences; N > 1: one launch
                per direction, batch sequences
    carry       grid (⌈N D / 16 or 32⌉,       sum, end ─> entering: exclusive scan over chunks of
                4 · batch)                    h ← exp2(a · sum) h + end
    output      N = 1: rows (0, then 2), then x, p, entering ─> y; with direction 3 ─> out
                columns (1, then 3); N > 1:
                one launch per direction

**Constants of a kernel**: V, a `Variant` with D, KW, N, RANK and beside them ELEMENT, the dtype of x, EDGES,
whether any tile of the launch may reach over an edge, and FEW_ROWS, whether the image has fewer than T rows,
so that a tile by columns may span several of them; K the direction; COLUMNS 1 for directions 1 and 3; HALF 0
for the low channels, 1 for the high ones; INTERIOR whether the tile is known to be interior.

**What travels together** inside a kernel: `Inputs`, what both passes read of one image; `Place`, where the
positions of a tile are; for N = 1 `Direction`, what is read once for each direction, and `Outputs`.

**Files**, in an order to read them: `op` checks and dispatches; `reference` is the oracle and `vectorized`
the `torch` backend. Of the `triton` backend `fused` launches, `packing` lays out parameters and `chunks`
cuts sequences; `tile` and `steps` are what both passes do with one tile; `single_state` and `many_states`
are the summary and output kernels for N = 1 and N > 1, and `carry` is between them.
"""

from vlmprof.kernels.ss2d.op import ss2d

__all__ = ["ss2d"]
