"""A tokenizer for a configuration without one, in which each word is a token."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORD = "a"
"""The word that prompts consist of."""
COMMON = ("<unk>", "<s>", "</s>", "<pad>", WORD)
"""Words of every such tokenizer."""

NAMED = {
    "image_token": "<image>", "video_token": "<video>", "audio_token": "<audio>",
    "boi_token": "<boi>", "eoi_token": "<eoi>", "eol_token": "<eol>", "eof_token": "<eof>",
    "boa_token": "<boa>", "eoa_token": "<eoa>", "image_wrapper_token": "<image_wrapper>",
    "img_line_break_token": "<img_line_break>", "vision_start_token": "<vision_start>",
    "vision_end_token": "<vision_end>", "image_start_token": "<image_start>",
    "image_end_token": "<image_end>", "video_start_token": "<video_start>", "video_end_token": "<video_end>",
    "image_break_token": "<image_break>", "context_image_token": "<context_image>",
    "start_image_token": "<start_image>", "end_image_token": "<end_image>",
    "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
    "slice_start_token": "<slice>", "slice_end_token": "</slice>", "image_boundary_token": "<image_boundary>",
}  # fmt: skip
"""Attributes of a tokenizer that processors read, and their values here."""

SPECIAL = r"<\|?/?[^<>\s|]+\|?>|\[[A-Z_]+\]"
"""A pattern for the special tokens of any processor."""


def placeholder_tokenizer(
    special: Mapping[str, int], vocabulary: int, unnamed: Collection[str] = (), underscored: bool = False
) -> PreTrainedTokenizerFast:
    """Make a tokenizer in which the words of `special` have these ids, and all others are unknown.

    `unnamed` are attributes, such as `image_token`, that it lacks. With `underscored`, every text starts with
    a token for a space, as in SentencePiece.
    """
    taken = {number for number in special.values() if number < vocabulary}
    free = (number for number in range(vocabulary) if number not in taken)
    ids = dict(special)
    for word in (*COMMON, *NAMED.values()):
        if word not in ids:
            ids[word] = next(free)
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    if underscored:
        tokenizer.normalizer = normalizers.Prepend("▁")
    words = "|".join(sorted(map(re.escape, special), key=len, reverse=True))
    pattern = f"{words}|{SPECIAL}|\\w+|[^\\w\\s]" if words else f"{SPECIAL}|\\w+|[^\\w\\s]"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
    ])  # fmt: skip
    made: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens={name: word for name, word in NAMED.items() if name not in unnamed},
        model_max_length=10**9,
    )  # fmt: skip
    return made
