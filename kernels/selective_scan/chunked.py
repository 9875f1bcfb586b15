"""The linear recurrence h_l = a_l h_(l-1) + b_l, vectorized over chunks, channels and batch.

A sequence is cut into chunks of `steps`. Position l = chunk · steps + step is stored at [step, chunk], so
that a step of all chunks is one contiguous slab and one call of an elementwise operation:

    1. inside the chunks, step by step:   b_t += a_t b_(t-1),  a_t *= a_(t-1)
    2. over the chunk ends, the same recurrence, shorter: recursively
    3. the state entering each chunk:     b_t += a_t · entering

Decays are only multiplied and never divided by, so a decay that underflows to 0 is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_STEPS = 8
"""Steps per chunk: fewer give larger slabs and more levels, more give more calls."""

SHORT = 12
"""Most chunk ends of a recurrence that runs sequentially."""


def scan_chunks_(decay: Tensor, drive: Tensor, entering: Tensor | None, reverse: bool) -> Tensor:
    """Run the recurrence in place over chunked sequences and return the final state, (*channels).

    decay, drive: (steps, chunks, *channels), contiguous; `drive` becomes the states and `decay` the
    products of decays since the start of the chunk. entering: (*channels), the state before the first
    position, or None for 0. `reverse` runs from the last position to the first. Padding must have
    drive 0, and decay 1 unless the state that reaches it is 0.
    """
    steps, chunks = decay.shape[:2]
    decays, drives = decay.unbind(0), drive.unbind(0)
    order = range(steps - 1, -1, -1) if reverse else range(steps)
    before = order[0]
    for t in order[1:]:
        drives[t].addcmul_(decays[t], drives[before])
        decays[t].mul_(decays[before])
        before = t

    if entering is None:
        if chunks == 1:
            return drives[before][0]
        entering = torch.zeros_like(drives[before][0])
    into_chunks, leaving = _carry(decays[before], drives[before], entering, reverse)
    drive.addcmul_(decay, into_chunks)
    return leaving


def _carry(decay: Tensor, drive: Tensor, entering: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return the state that enters each chunk, (chunks, *channels), and the one that leaves the last.

    decay, drive: (chunks, *channels), the effect of each chunk on the entering state. The states are
    those of a recurrence that is one element longer and starts with `entering`.
    """
    chunks = decay.shape[0]
    into_chunks, first, last = (slice(1, None), chunks, 0) if reverse else (slice(chunks), 0, chunks)
    if chunks <= SHORT:
        states = drive.new_empty(chunks + 1, *drive.shape[1:])
        rows = states.unbind(0)
        state = rows[first].copy_(entering)
        for c in range(chunks - 1, -1, -1) if reverse else range(chunks):
            after = c if reverse else c + 1
            state = torch.addcmul(drive[c], decay[c], state, out=rows[after])
        return states[into_chunks], rows[last]

    padding = -(chunks + 1) % CHUNK_STEPS
    longer_decay = decay.new_ones(chunks + 1 + padding, *decay.shape[1:])
    longer_drive = drive.new_zeros(longer_decay.shape)
    ends = slice(chunks) if reverse else slice(1, chunks + 1)
    longer_decay[ends] = decay
    longer_drive[ends] = drive
    longer_drive[first] = entering
    states = _into_chunks(longer_drive)
    scan_chunks_(_into_chunks(longer_decay), states, None, reverse)
    states = states.transpose(0, 1).flatten(0, 1)[: chunks + 1]
    return states[into_chunks], states[last]


def _into_chunks(sequence: Tensor) -> Tensor:
    """Convert (chunks · steps, *channels) to (steps, chunks, *channels)."""
    return sequence.unflatten(0, (-1, CHUNK_STEPS)).transpose(0, 1).contiguous()
