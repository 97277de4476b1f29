"""The places of a template that something is put into: its gap and, for masked models, its mask."""

from __future__ import annotations

from typing import Any

GAPS = {"label": "{label}", "text": "{text}", "image": "{label}"}
MASK = "{mask}"


def mask_in(template: str, vocabulary: Any) -> str:
    """The template's mask as it is written there, ``""`` where there is none.

    Args:
        template: any prompt's.
        vocabulary: the box's; that of a masked model knows the tokenizer's own spelling.
    """
    frame = getattr(vocabulary, "frame", None)
    spellings = (MASK, frame(MASK) if frame else MASK)
    return next((mask for mask in spellings if mask in template), "")
