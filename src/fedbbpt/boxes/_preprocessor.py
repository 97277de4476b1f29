"""How a model wants its pictures, by the ``preprocessor_config.json`` beside its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedbbpt.errors import ConfigError

Triple = tuple[float, float, float]
Size = tuple[int, int]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, by which most classifiers are trained."""
BILINEAR = 2
NAME = "preprocessor_config.json"
WHOLE = 384
"""From this side on ConvNeXt's images are not cropped."""


class Wanted(NamedTuple):
    """What a model's own configuration says.

    Attributes:
        size: (H, W) of what comes out, or ``None`` where it does not say.
        way, edge, resample: as :class:`fedbbpt.boxes._sight.Sight` takes them.
        mean, std: by which pixels in [0, 1] are normalised.
    """

    size: Size | None = None
    way: str = "squash"
    edge: int = 0
    resample: int = BILINEAR
    mean: Triple = IMAGENET[0]
    std: Triple = IMAGENET[1]


def wanted(model: Path) -> Wanted:
    """What stands beside a model's file, or above the folder ``onnx`` that it is in.

    Raises:
        ConfigError: it cannot be read, or asks for what nothing here does.
    """
    above = [model.parent.parent] if model.parent.name == "onnx" else []
    for folder in (model.parent, *above):
        file = folder / NAME
        if file.is_file():
            try:
                return _read(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError) as error:
                said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise ConfigError(f"{file} cannot be followed: {said}") from error
    return Wanted()


def _read(said: Any) -> Wanted:
    if not isinstance(said, dict):
        raise ValueError(f"it holds a {type(said).__name__} and no table")
    if said.get("do_flip_channel_order"):
        raise ValueError("it asks for blue, green, red; give a callable that turns the colours")
    if not said.get("do_resize", True):
        raise ValueError("it leaves pictures as large as they are, and a model needs one size")
    size, way, edge = _geometry(said)
    resample = int(said.get("resample", BILINEAR))
    if not 0 <= resample <= 5:
        raise ValueError(f"its resample is {resample}; known: 0 to 5")
    plain = said.get("do_normalize", True)
    mean = _colours(said.get("image_mean", IMAGENET[0])) if plain else (0.0,) * 3
    std = _colours(said.get("image_std", IMAGENET[1])) if plain else (1.0,) * 3
    # The model gets (255 f x - offset - mean) / std, x in [0, 1].
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if min(std) <= 0 or factor <= 0:
        raise ValueError(f"its image_std {std} and rescale_factor {factor:g} must be above 0")
    reach, offset = round(255 * factor, 9), float(bool(said.get("rescale_offset", False)))
    return Wanted(
        size,
        way,
        edge,
        resample,
        _colours([(m + offset) / reach for m in mean]),
        _colours([s / reach for s in std]),
    )


def _geometry(said: Mapping[str, Any]) -> tuple[Size, str, int]:
    """Size, way and edge, as the image processors of transformers understand the same keys."""
    size, crops = said["size"], bool(said.get("do_center_crop", False))
    share = said.get("crop_pct")
    if isinstance(size, int):
        # As older files have it: what is cropped is scaled by its shorter side.
        size = {"shortest_edge": size} if crops or share else {"height": size, "width": size}
    final = _pair(said["crop_size"]) if crops else None
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        shorter, _ = _pair(size["shortest_edge"])
        if final is None and not share:
            raise ValueError("it leaves pictures of different sizes, and a model needs one size")
        if not crops and shorter >= WHOLE:
            return (shorter, shorter), "squash", 0
        edge = int(shorter / float(share)) if share else shorter
        return final or (shorter, shorter), "crop", edge
    height, width = _pair(size)
    if final is None or final == (height, width):
        return (height, width), "squash", 0
    if height != width:
        raise ValueError(f"it scales to {height}x{width} and crops that; only squares are known")
    return final, "squash", height


def _pair(size: Any) -> Size:
    both = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    height, width = (side if isinstance(side, int) else 0 for side in both)
    if min(height, width) < 1:
        raise ValueError(f"its size is {size!r}; known: a number, height and width, shortest_edge")
    return height, width


def _colours(numbers: Any) -> Triple:
    if not isinstance(numbers, list | tuple) or len(numbers) != 3:
        raise ValueError(f"{numbers!r} are not three numbers, of red, green and blue")
    red, green, blue = (float(n) for n in numbers)
    return red, green, blue
