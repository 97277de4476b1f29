"""From the bytes of an image file, or from an array, to red, green and blue."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import MissingExtra

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Only these are tried: others can start programs (PostScript) or are no pictures (PDF)."""
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""By these a file that nothing can open is told from one that is not an image."""
ORIENTATION = 0x0112  # EXIF
ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


class Unreadable(Exception):
    """An image cannot be read; ``str(error)`` is the reason in a few words, without a colon."""


def decode(data: bytes, shorter: int) -> Array:
    """The pixels of an image file: its first frame, upright, on white where it is transparent.

    Args:
        data: the whole file.
        shorter: an image whose shorter side has more pixels is shrunk to that; 0 for never.

    Returns:
        (H, W, 3) uint8, read-only.

    Raises:
        Unreadable: it is no image, or not a whole one.
        MissingExtra: Pillow is not installed.
    """
    if not data:
        raise Unreadable("empty file")
    pil = _pillow()
    pil.init()
    known = [name for name in FORMATS if name in pil.OPEN]

    def read() -> Array:
        with pil.open(io.BytesIO(data), formats=known) as image:
            size = _shrunk(image.size, 2 * shorter)
            if size != image.size:
                # JPEG is decoded at a half, a quarter or an eighth, and still twice too large.
                image.draft(None, size)
            return flat(image, shorter)

    try:
        return guarded(read)
    except pil.UnidentifiedImageError:
        begun = data.startswith(BEGINNINGS)
        raise Unreadable("damaged" if begun else "not an image") from None


def guarded(read: Callable[[], Array]) -> Array:
    """What ``read`` makes with Pillow; whatever Pillow says against it becomes a reason."""
    pil = _pillow()
    # Pillow warns of odd metadata, which is nothing to us, and of pictures as large as bombs.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", pil.DecompressionBombWarning)
        try:
            return read()
        except (Unreadable, MemoryError, pil.UnidentifiedImageError):
            raise
        except (pil.DecompressionBombWarning, pil.DecompressionBombError):
            raise Unreadable(f"more than {pil.MAX_IMAGE_PIXELS} pixels") from None
        except Exception as error:  # what a broken file can raise has no common root
            truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
            why = " ".join(str(error).split()).replace(": ", " ") or type(error).__name__
            raise Unreadable("truncated" if truncated else f"damaged, {why}") from None


def flat(image: Any, shorter: int) -> Array:
    """The pixels of a Pillow image, as :func:`decode` gives them; to be called in ``guarded``."""
    pil = _pillow()
    image.load()
    turned = _upright(image)
    if turned.mode[:1] in ("I", "F"):
        pixels = _deep(np.asarray(turned))
    elif turned.mode in ALPHA or "transparency" in turned.info:
        pixels = _on_white(np.asarray(turned.convert("RGBA")))
    else:
        pixels = np.asarray(turned.convert("RGB"))
    return shrink(pixels, shorter, pil)


def shrink(pixels: Array, shorter: int, pil: ModuleType | None = None) -> Array:
    """(H, W, 3) uint8 pixels, read-only, with a shorter side of at most ``shorter``, if not 0."""
    height, width = pixels.shape[:2]
    size = _shrunk((width, height), shorter)
    if size != (width, height):
        pil = pil or _pillow()
        pixels = np.asarray(pil.fromarray(pixels).resize(size, pil.Resampling.BICUBIC))
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    return pixels


def coloured(values: Array) -> Array:
    """An array as (H, W, 3) uint8.

    Args:
        values: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), the last with an alpha channel: uint8,
            or floats in [0, 1].

    Raises:
        Unreadable: another shape, type or range.
    """
    shape = values.shape
    if (
        len(shape) not in (2, 3)
        or (len(shape) == 3 and shape[2] not in (1, 3, 4))
        or not min(shape)
    ):
        raise Unreadable(
            f"an array of shape {shape}; give (H, W), (H, W, 3) or (H, W, 4), channels last"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Unreadable("an array with NaN or infinite values; give floats in [0, 1]")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise Unreadable(
                f"an array with floats from {low:g} to {high:g}; give floats in [0, 1], or uint8"
            )
        values = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise Unreadable(f"an array of type {values.dtype}; give uint8, or floats in [0, 1]")
    if values.ndim == 2:
        values = values[..., None]
    if values.shape[2] == 4:
        return _on_white(values)
    return np.array(np.broadcast_to(values, (*values.shape[:2], 3)))


def _on_white(pixels: Array) -> Array:
    """(H, W, 4) uint8 over white."""
    alpha = pixels[..., 3:].astype(np.uint32)
    mixed = pixels[..., :3] * alpha + 255 * (255 - alpha)
    return np.asarray(((mixed + 127) // 255).astype(np.uint8))


def _deep(values: Array) -> Array:
    """(H, W) grey of more than eight bits."""
    if values.dtype.kind == "f":
        return coloured(values)
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable("grey of more than 16 bits")
    return coloured(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _upright(image: Any) -> Any:
    """Turned as its EXIF orientation says."""
    turn = _pillow().Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    try:
        wanted = turns.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken metadata beside whole pixels
        wanted = None
    return image if wanted is None else image.transpose(wanted)


def _shrunk(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """A size with its shorter side cut down to ``shorter``, unless that is 0."""
    least = min(size)
    if not 0 < shorter < least:
        return size
    width, height = (max(shorter, round(side * shorter / least)) for side in size)
    return width, height


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "vision") from None
    module: ModuleType = Image
    return module
