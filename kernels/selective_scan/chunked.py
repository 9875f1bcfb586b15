"""The linear recurrence h_l = a_l h_(l-1) + b_l, vectorised over chunks, channels and batch.

A sequence is cut into chunks of `steps`; position l = chunk · steps + step lies at [step, chunk], so
that one step of all chunks is one contiguous slab and one call of an elementwise operation:

    1. inside the chunks, step by step:   b_t += a_t b_(t-1),  a_t *= a_(t-1)
    2. over the chunk ends, the same recurrence, shorter: recursively
    3. what enters each chunk is added:   b_t += a_t · entering

Decays only ever multiply, nothing is divided by them, so one that underflows to 0 is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_STEPS = 8
"""Steps per chunk: fewer mean larger slabs and more levels, more mean more calls."""

SHORT = 12
"""A recurrence over at most so many chunk ends runs one by one."""


def chunk_count(length: int, steps: int = CHUNK_STEPS) -> int:
    """Chunks that cover `length` positions, the last one perhaps in part."""
    return -(-length // steps)


def scan_chunks_(decay: Tensor, drive: Tensor, entering: Tensor, reverse: bool) -> Tensor:
    """Run the recurrence in place over chunked sequences and return the state that leaves it.

    decay, drive: (steps, chunks, *channels), contiguous; `drive` becomes the states and `decay` the
    products of decays since the chunk began. entering: (*channels), the state before the first
    position. `reverse` runs from the last position to the first. Padding must have drive 0, and
    decay 1 unless the state that reaches it is 0.
    """
    steps, chunks = decay.shape[:2]
    decays, drives = decay.unbind(0), drive.unbind(0)
    order = range(steps - 1, -1, -1) if reverse else range(steps)
    before = order[0]
    for t in order[1:]:
        drives[t].addcmul_(decays[t], drives[before])
        decays[t].mul_(decays[before])
        before = t

    into_chunk = torch.empty_like(drives[before])
    first, last = (chunks - 1, 0) if reverse else (0, chunks - 1)
    into_chunk[first] = entering
    if chunks > 1:
        ends = _chunk_end_states(decays[before], drives[before], entering, reverse)
        if reverse:
            into_chunk[:-1] = ends[1:]
        else:
            into_chunk[1:] = ends[:-1]
    drive.addcmul_(decay, into_chunk)
    return drives[before][last].clone()


def _chunk_end_states(decay: Tensor, drive: Tensor, entering: Tensor, reverse: bool) -> Tensor:
    """States at the ends of the chunks, (chunks, *channels), from what each chunk does on its own."""
    chunks = decay.shape[0]
    if chunks <= SHORT:
        states = torch.empty_like(drive)
        state = entering
        for c in range(chunks - 1, -1, -1) if reverse else range(chunks):
            state = torch.addcmul(drive[c], decay[c], state, out=states[c])
        return states
    decay, drive = _into_chunks(decay, fill=1.0), _into_chunks(drive, fill=0.0)
    scan_chunks_(decay, drive, entering, reverse)
    return drive.transpose(0, 1).flatten(0, 1)[:chunks]


def _into_chunks(sequence: Tensor, fill: float) -> Tensor:
    """(length, *channels) -> (steps, chunks, *channels), the tail filled up with `fill`."""
    length = sequence.shape[0]
    chunks = chunk_count(length)
    padded = sequence.new_full((chunks * CHUNK_STEPS, *sequence.shape[1:]), fill)
    padded[:length] = sequence
    return padded.unflatten(0, (chunks, CHUNK_STEPS)).transpose(0, 1).contiguous()
