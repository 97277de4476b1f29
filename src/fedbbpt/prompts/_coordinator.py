"""A prompt for each picture: a light decoder behind a frozen local encoder (BlackVIP).

The decoder (about 8,400 numbers) makes 32 x 7 x 7 features into an image by five transposed
convolutions. Between them stand group normalisations and not the published batch normalisation,
under which a picture's prompt depends on the pictures beside it. Its last layer starts at zero,
so that nothing learned means nothing changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.random import stream
from fedbbpt.types import Picture, digest

SIDE, CHANNELS = 7, (64, 32, 32, 16)
GROUPS = 8
PIXELS = 16
"""Side of the thumbnail that stands for a picture where no encoder is named: 768 numbers, as many
as ViT-MAE-base's."""


class Coordinator:
    """Encoder and decoder.

    Args:
        encoder: ``"pixels"`` or a transformers vision model.
        size: (H, W) of the model's input.
        std: by which the model divides pixels; the decoder works in its normalised units.
        eps: factor on what the decoder makes.
        seed: of the first weights.

    Attributes:
        parameters: numbers of the decoder and its trigger vector.
    """

    def __init__(
        self,
        encoder: str,
        size: tuple[int, int],
        std: tuple[float, float, float],
        eps: float,
        seed: int,
    ) -> None:
        try:
            import torch  # noqa: F401 - refused here and not in the middle of a run
        except ImportError:
            raise MissingExtra("torch", "hf") from None
        self.encoder, self.size, self.eps = _encoder(encoder), size, eps
        self.std = np.array(std, np.float32)
        code = self.encoder.width
        # 32 channels as published for codes of 768 numbers, more where they do not fit.
        self.source = max(32, -(-(code + 1) // SIDE**2))
        self.source += -self.source % 32
        self.trigger = self.source * SIDE**2 - code
        self.shapes = _shapes(self.source)
        self.parameters = self.trigger + sum(int(np.prod(shape)) for shape in self.shapes)
        self.start = self._first(stream(seed, "coordinator"))

    def at(self, point: Array) -> Coordinated:
        """What this point does to pictures."""
        weights = (self.start + point).astype(np.float32)
        facts = {
            "prompt": "visual",
            **self.encoder.facts,
            "size": list(self.size),
            "std": [float(s) for s in self.std],
            "eps": self.eps,
        }
        return Coordinated(self, weights, facts)

    def _first(self, numbers: np.random.Generator) -> Array:
        parts: list[Array] = [numbers.uniform(0.0, 0.1, self.trigger)]  # as published
        for shape in self.shapes[:-1]:
            if len(shape) == 1:
                # Gains and shifts stand in turn.
                parts.append(np.ones(shape) if len(parts) % 2 else np.zeros(shape))
                continue
            bound = 1 / np.sqrt(np.prod(shape[1:]))  # torch's own default
            parts.append(numbers.uniform(-bound, bound, shape).ravel())
        whole: Array = np.concatenate([*parts, np.zeros(int(np.prod(self.shapes[-1])))])
        return whole

    def paint(self, weights: Array, pictures: Sequence[Picture]) -> Array:
        """(B, H, W, 3) what is added to each picture."""
        import torch
        from torch.nn import functional

        cut = np.cumsum([self.trigger, *(int(np.prod(shape)) for shape in self.shapes)])
        parts = [torch.from_numpy(part) for part in np.split(weights, cut[:-1])]
        trigger, layers = parts[0], zip(parts[1:], self.shapes, strict=True)
        given = [part.reshape(shape) for part, shape in layers]
        codes = torch.from_numpy(np.array([self.encoder.code(p) for p in pictures]))
        with torch.inference_mode():
            beside = trigger.expand(len(pictures), -1)
            seen = torch.cat([codes, beside], dim=1).reshape(-1, self.source, SIDE, SIDE)
            for block, channels in enumerate(CHANNELS):
                wide, point, gain, shift = given[4 * block : 4 * block + 4]
                before = seen.shape[1]
                groups = min(before, channels)
                seen = functional.conv_transpose2d(seen, wide, stride=2, groups=groups)
                seen = functional.conv2d(seen, point)
                seen = functional.group_norm(seen, GROUPS, gain, shift)
                seen = functional.gelu(seen)
            made = functional.conv_transpose2d(seen, given[-1], stride=2)
        painted: Array = made.permute(0, 2, 3, 1).numpy()
        for axis, length in enumerate(self.size, start=1):
            painted = _stretched(painted, axis, length)
        scaled: Array = painted * (self.eps * self.std)
        return scaled.astype(np.float32)


class Coordinated:
    """A coordinator with its weights: changes every picture in its own way."""

    def __init__(self, coordinator: Coordinator, weights: Array, facts: Mapping[str, Any]) -> None:
        self.coordinator, self.weights, self.facts = coordinator, weights, facts
        self.key = digest("coordinator", repr(facts), weights.tobytes())

    @property
    def arrays(self) -> Arrays:
        """Trigger and decoder."""
        return {"coordinator": self.weights}

    def on(self, images: Array, pictures: Sequence[Picture]) -> Array:
        """The prompted images, (B, H, W, 3) float32 in [0, 1]."""
        painted = self.coordinator.paint(self.weights, pictures)
        prompted: Array = np.clip(images + painted, 0.0, 1.0)
        return prompted

    @classmethod
    def restored(cls, facts: Mapping[str, Any], arrays: Arrays) -> Coordinated:
        """Inverse of saving facts and weights."""
        height, width = facts["size"]
        red, green, blue = facts["std"]
        whole = Coordinator(facts["encoder"], (height, width), (red, green, blue), facts["eps"], 0)
        then, now = (np.array(f.get("seen", [])) for f in (facts, whole.encoder.facts))
        if not np.allclose(now, then, atol=0.01 * np.abs(now).max(initial=0.0)):
            raise ConfigError(
                f"prompt.encoder '{facts['encoder']}' is not the model that the prompt was tuned "
                "with; bring that one back, or tune again"
            )
        return cls(whole, arrays["coordinator"].copy(), dict(facts))


def _shapes(source: int) -> list[tuple[int, ...]]:
    """Of every layer: a transposed convolution in groups, one of single pixels, gain and shift."""
    shapes: list[tuple[int, ...]] = []
    before = source
    for channels in CHANNELS:
        shapes.append((before, channels // min(before, channels), 2, 2))
        shapes += [(channels, channels, 1, 1), (channels,), (channels,)]
        before = channels
    return [*shapes, (before, 3, 2, 2)]


def _stretched(images: Array, axis: int, length: int) -> Array:
    """Images with so many pixels along an axis, linear in between.

    Not torch's own, whose last bits change with the number of threads.
    """
    before = images.shape[axis]
    if before == length:
        return images
    place = np.clip((np.arange(length) + 0.5) * before / length - 0.5, 0, before - 1)
    low = np.minimum(place.astype(np.int64), before - 2)
    shape = [length if i == axis else 1 for i in range(images.ndim)]
    share = (place - low).astype(np.float32).reshape(shape)
    left, right = images.take(low, axis), images.take(low + 1, axis)
    return np.asarray(left + share * (right - left))


# --- encoders ------------------------------------------------------------------------------------


class Thumbnail:
    """The picture itself in 16 x 16 pixels: no model at all."""

    facts: Mapping[str, Any] = {"encoder": "pixels"}
    width = 3 * PIXELS**2

    def __init__(self) -> None:
        self.code = lru_cache(maxsize=1 << 14)(self._code)

    def _code(self, picture: Picture) -> Array:
        from PIL import Image

        small = Image.fromarray(picture.pixels).resize((PIXELS, PIXELS), Image.Resampling.BOX)
        return (np.asarray(small, np.float32).ravel() - 127.5) / np.float32(64.0)


class Encoder:
    """A transformers vision model: its first token, or what it pools."""

    def __init__(self, model: str) -> None:
        try:
            import torch
            import transformers
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        transformers.utils.logging.disable_progress_bar()
        try:
            self._network = transformers.AutoModel.from_pretrained(
                model, dtype=torch.float32
            ).eval()
            self._processor = transformers.AutoImageProcessor.from_pretrained(model)
            if hasattr(self._network.config, "mask_ratio"):
                self._network.config.mask_ratio = 0.0  # ViT-MAE hides three quarters otherwise
            shades = (np.arange(32 * 32 * 3) % 256).astype(np.uint8).reshape(32, 32, 3)
            tried = self._code(Picture(shades))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"prompt.encoder '{model}' cannot be used: {why}; name a transformers vision model"
            ) from error
        # Other weights under the same name make other prompts of the same points.
        self.facts: Mapping[str, Any] = {"encoder": model, "seen": tried[:8].tolist()}
        self.code = lru_cache(maxsize=1 << 14)(self._code)
        self.width = len(tried)

    def _code(self, picture: Picture) -> Array:
        import torch

        given = dict(self._processor(images=[picture.pixels], return_tensors="pt"))
        if hasattr(self._network.config, "mask_ratio"):
            # Else it shuffles patches by chance, and the last bits of what it sees.
            patches = np.prod(given["pixel_values"].shape[2:]) // self._network.config.patch_size**2
            given["noise"] = torch.arange(int(patches))[None]
        with torch.inference_mode():
            seen = self._network(**given).last_hidden_state
        # (1, tokens, H) of a transformer, (1, H, rows, columns) of a convolutional network.
        code = seen[0, 0] if seen.ndim == 3 else seen[0].mean(dim=(1, 2))
        return np.asarray(code.float().numpy())


@lru_cache(maxsize=2)
def _encoder(name: str) -> Thumbnail | Encoder:
    return Thumbnail() if name == "pixels" else Encoder(name)
