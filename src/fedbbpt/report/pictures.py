"""What a visual prompt looks like, and what it does to some pictures: PNG files of a run.

They show private images. They are written where the examples are and nothing sends them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import MissingExtra
from fedbbpt.senses import Vision
from fedbbpt.sharing import Split
from fedbbpt.types import Batch, Picture, Pixels

PROMPT, STRIP, README = "prompt.png", "before-after.png", "README.txt"
MOST, SHOWN = 8, 3
"""Pictures of the strip, and of a prompt that is different for every picture."""
GAP, GROUND = 4, np.float32(0.8)
"""Pixels between two pictures and around all, and their grey: neither paper's nor nothing's."""
LEAST = 128
"""Smaller pictures are enlarged to this, each pixel to a square."""
GREY = np.float32(0.5)

OVERLAY = (
    "prompt.png shows what is added to every picture, around grey, {times:.3g} times as strong."
)
LOOK = "prompt.png shows a test chart before the prompt (left) and after it (right)."
OWN = (
    "prompt.png shows three pictures (top) and what is added to each (bottom), around grey, "
    "{times:.3g} times as strong."
)
NOTE = """\
{prompt}
before-after.png shows {count} {kind} pictures as the model gets them: before (top), after (bottom).

These are images of the clients, made from their private examples. They stay on this machine:
give them to nobody who may not see the examples.
"""


def draw(
    folder: Path, visual: Pixels | None, vision: Vision | None, split: Split
) -> tuple[str, ...]:
    """Write the pictures of a chosen prompt into a folder; nothing for one that changes none.

    Args:
        folder: made if missing.
        visual: what the prompt does to pictures.
        vision: how its box sees them.
        split: of its test pictures some are shown; where there are none, training pictures.

    Returns:
        Why they could not be drawn, a sentence; usually nothing.
    """
    kind = "test" if _some(split.test) else "training"
    shown = _some(split.test) or _some(split.train)
    if visual is None or vision is None or not shown:
        return ()
    try:
        pil = _pillow()
        before = np.array([vision.fit(picture) for picture in shown])
        after = visual.on(before.copy(), shown)
        learned, told = _prompt(visual, before, after, vision.size)
        folder.mkdir(parents=True, exist_ok=True)
        _image(pil, learned).save(folder / PROMPT)
        _image(pil, _sheet([before, after])).save(folder / STRIP)
    except (MissingExtra, OSError) as error:
        return (f"the prompt's pictures are not drawn: {error}",)
    note = NOTE.format(prompt=told, count=len(shown), kind=kind)
    (folder / README).write_text(note, encoding="utf-8")
    return ()


def _some(batches: Mapping[str, Batch]) -> tuple[Picture, ...]:
    """Up to eight pictures, evenly out of all; in files they are sorted by client and class."""
    every = {id(x): x for batch in batches.values() for x in batch.inputs if isinstance(x, Picture)}
    pictures = list(every.values())
    places = np.linspace(0, len(pictures) - 1, min(MOST, len(pictures))).round().astype(int)
    return tuple(pictures[i] for i in places)


def _prompt(
    visual: Pixels, before: Array, after: Array, size: tuple[int, int]
) -> tuple[Array, str]:
    """The prompt as an image, and what it shows."""
    if "look" in visual.arrays:
        chart = chart_of(size)[None]
        return _sheet([np.concatenate([chart, visual.on(chart.copy(), [_picture(chart)])])]), LOOK
    if "overlay" in visual.arrays:
        delta = visual.arrays["overlay"]
        times = _times(delta)
        return _sheet([GREY + times * delta[None]]), OVERLAY.format(times=times)
    added = (after - before)[:SHOWN]
    times = _times(added)
    return _sheet([before[:SHOWN], GREY + times * added]), OWN.format(times=times)


def _picture(chart: Array) -> Picture:
    return Picture(np.rint(255 * chart[0]).astype(np.uint8))


def _times(delta: Array) -> float:
    """By what all but the largest few changes fill the range around grey."""
    return float(GREY / max(float(np.quantile(np.abs(delta), 0.995)), 1e-3))


def chart_of(size: tuple[int, int]) -> Array:
    """(H, W, 3) float32 in [0, 1]: a grey ramp, colour bars, and a fine and a coarse grid."""
    height, width = size
    down, across = (np.arange(n)[:, None] / n for n in size)
    chart = np.ones((height, width, 3), np.float32)
    third = (3 * down[:, 0]).astype(int)
    chart[third == 0] = across[None, :, :]
    bars = (np.array([7, 6, 3, 2, 5, 4, 1, 0])[(8 * across[:, 0]).astype(int)])[:, None]
    chart[third == 1] = (bars >> np.array([2, 1, 0]) & 1) * np.float32(0.75)
    step = max(4, min(size) // 14)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    lines = (rows % step == 0) | (columns % step == 0)
    chart[(third == 2)[:, None] & lines] = 0.0
    return chart


# --- sheets --------------------------------------------------------------------------------------


def _sheet(rows: Sequence[Array]) -> Array:
    """(N, H, W, 3) images in rows on light grey, each pixel of a small one as a square."""
    count, height, width, _ = rows[0].shape
    larger = -(-LEAST // max(height, width))
    height, width = larger * height, larger * width
    size = (GAP + len(rows) * (height + GAP), GAP + count * (width + GAP), 3)
    sheet = np.full(size, GROUND, np.float32)
    for r, row in enumerate(rows):
        top = GAP + r * (height + GAP)
        for c, image in enumerate(row):
            left = GAP + c * (width + GAP)
            grown = image.repeat(larger, axis=0).repeat(larger, axis=1)
            sheet[top : top + height, left : left + width] = grown
    return sheet


def _image(pil: Any, values: Array) -> Any:
    return pil.fromarray(np.rint(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "vision") from None
    return Image
