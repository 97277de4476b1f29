"""A transformers model with a tower for texts and one for pictures: CLIP, SigLIP and their kin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._encoder import Vectors
from fedbbpt.boxes._sight import Sight
from fedbbpt.boxes._transformers import Inputs, Tokens
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.types import Picture

CONFIGS = ("preprocessor_config.json", "processor_config.json")
"""Where a folder says how its model wants pictures."""
RAW = {"do_rescale": False, "do_normalize": False, "input_data_format": "channels_last"}
DECIDES = ("do_resize", "size", "resample", "do_center_crop", "crop_size")
"""What of an image processor changes a fitted picture."""
NEEDLESS = ("position_ids", "logit_bias")
"""Weights that scores do not depend on."""


class Names(Tokens):
    """The vocabulary of a text tower, whatever marks its whole words.

    Attributes:
        front, back: special tokens before and after every text.
        blank: an ordinary token, under which a new one without an embedding of its own is hidden.
    """

    def __init__(self, tokenizer: Any, matrix: Array) -> None:
        vocabulary = tokenizer.get_vocab()
        self._mark = next((mark for mark in ("▁", "Ġ") if f"{mark}a" in vocabulary), "")
        self._end = "</w>" if "a</w>" in vocabulary else ""
        super().__init__(tokenizer, matrix)
        own, whole = self.tokenise("a photo"), list(tokenizer("a photo")["input_ids"])
        begin = next((i for i in range(len(whole)) if whole[i : i + len(own)] == own), 0)
        self.front, self.back = tuple(whole[:begin]), tuple(whole[begin + len(own) :])
        special = {*self.front, *self.back, *tokenizer.all_special_ids}
        self.blank = next(i for i in range(len(matrix)) if i not in special)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap, and each id's place in the template."""
        if self._tokenizer.is_fast:
            return super().layout(template, fill)
        ids, before, after = self._parted(template, fill)
        inside = len(ids) - before - after
        return ids, [*range(before), *[-1] * inside, *range(before, before + after)]

    def behind(self, template: str, fill: str) -> int:
        """How many of :meth:`layout`'s tokens stand before the end of ``fill``."""
        if self._tokenizer.is_fast:
            return super().behind(template, fill)
        ids, _, after = self._parted(template, fill)
        return len(ids) - after

    def _parted(self, template: str, fill: str) -> tuple[list[int], int, int]:
        """Ids, and how many of them are the template's before and after its gap: SigLIP's own
        tokenizer drops punctuation and does not say where in a text its tokens stand.
        """
        start, _, end = template.partition("\0")
        ids = self.tokenise(start + fill + end)
        before = _common(ids, self.tokenise(start))
        return ids, before, _common(ids[before:][::-1], self.tokenise(end)[::-1])

    def _is_word(self, token: str) -> bool:
        bare = token.removeprefix(self._mark).removesuffix(self._end)
        marked = token.startswith(self._mark) and token.endswith(self._end)
        # Byte-level vocabularies spell other letters as bytes that look like letters.
        readable = bare.isascii() or not (self._end or self._mark == "Ġ")
        return marked and readable and super()._is_word(bare)


class Towers(Vectors):
    """Two towers with a common space, one forward at a time.

    Attributes:
        scale: cosines are multiplied by it; a bias, as SigLIP has one, is nothing to a softmax.
        hidden: H of the common space.
        sight: fits pictures.
        width: tokens to which every text is filled up; 0 where that makes no difference.
    """

    vocabulary: Names

    def __init__(self, model: str, dtype: str, device: str, threads: int) -> None:
        super().__init__(model, "AutoModel", dtype, device, threads)
        random = [name for name in self.missing if not name.endswith(NEEDLESS)]
        if random:
            raise ConfigError(f"the files of box.model '{model}' lack {random[0]}")
        self.vocabulary = Names(self.tokenizer, self.matrix)
        self.limit = min(self.limit, int(self.tokenizer.model_max_length))
        self.scale = float(self.network.logit_scale.detach().float().exp().item())
        self._processor = _processor(self.path, self.network.config)
        self.sight = ProcessorSight(self._processor, model)
        self._mean = np.array(_by_colour(self._processor, "image_mean", 0.0), np.float32)
        self._std = np.array(self.sight.std, np.float32)
        # SigLIP reads a text off its last token, which it learnt to be a filler's.
        self.width = self.limit if self.network.config.model_type.startswith("siglip") else 0
        if self.width and self.tokenizer.padding_side != "right":
            raise ConfigError(f"the tokenizer of box.model '{model}' pads on the left, not right")
        self._masked = "attention_mask" in self.tokenizer.model_input_names
        self.network = self.network.to(device=self.device, dtype=self.dtype)
        self._reader(self.network)[0].register_forward_hook(self._replace)
        self._embedded: Any = None
        self.hidden = self._try_out(model)

    def batch(self, rows: Sequence[Inputs]) -> dict[str, Any]:
        """As :meth:`Pretrained.batch`, with the ids, by which CLIP finds the end of a text."""
        width = self.width or max(len(ids) for ids, _, _ in rows)
        filler = self.tokenizer.pad_token_id or 0
        padded, lengths = [], np.array([len(ids) for ids, _, _ in rows])
        for ids, places, soft in rows:
            filled = np.append(ids, np.full(width - len(ids), filler, np.int64))
            padded.append((filled, places, soft))
        given = super().batch(padded)
        del given["attention_mask"]
        ids = np.array([ids for ids, _, _ in padded])
        given["input_ids"] = self._tensor(np.where(ids < 0, self.vocabulary.blank, ids))
        if self._masked:
            mask = np.arange(width) < lengths[:, None]
            given["attention_mask"] = self._tensor(mask.astype(np.int64))
        return given

    def see(self, images: Array) -> Array:
        """(B, H) float32 unit vectors of (B, height, width, 3) float32 images in [0, 1]."""
        normal = (images - self._mean) / self._std
        pixels = self._tensor(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
        with self.torch.inference_mode():
            found = self.network.get_image_features(pixel_values=pixels.to(self.dtype))
            return np.asarray(self._unit(found).cpu().numpy())

    def _units(self, given: Mapping[str, Any]) -> Any:
        # Text towers take no embeddings: they get ids, and the layer's answer is exchanged.
        asked = {name: value for name, value in given.items() if name != "inputs_embeds"}
        self._embedded = given["inputs_embeds"]
        try:
            return self._unit(self.network.get_text_features(**asked))
        finally:
            self._embedded = None

    def _unit(self, found: Any) -> Any:
        return self.torch.nn.functional.normalize(found.pooler_output.float(), dim=-1)

    def _replace(self, module: Any, given: Any, output: Any) -> Any:
        return self._embedded

    def _tensor(self, array: Array) -> Any:
        return self.torch.from_numpy(array).to(self.device)

    def _reader(self, network: Any) -> tuple[Any, int]:
        needed = ("get_text_features", "get_image_features", "logit_scale", "text_model")
        if not all(hasattr(network, part) for part in needed):
            raise ConfigError(
                f"box.model '{self.path}' is a {type(network).__name__}, which does not encode "
                "both images and texts; take a CLIP or SigLIP model"
            )
        text = network.text_model
        if not hasattr(text, "get_input_embeddings"):
            raise ConfigError("this box needs transformers 5; run: pip install -U transformers")
        return text.get_input_embeddings(), int(text.config.max_position_embeddings)

    def _try_out(self, model: str) -> int:
        """H; refuses towers without a common space, and pictures of a size that does not fit."""
        height, width = self.sight.size
        try:
            seen = self.see(np.zeros((1, height, width, 3), np.float32))
        except (RuntimeError, TypeError, ValueError) as error:
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise ConfigError(
                f"box.model '{model}' does not take the pictures of {height}x{width} that its "
                f"image processor makes: {said}"
            ) from error
        words = self.vocabulary
        read = self.forward([(np.array([*words.front, words.blank, *words.back]), None, None)])
        if seen.shape != read.shape:
            raise ConfigError(f"the towers of box.model '{model}' have no common space")
        return int(seen.shape[1])


class ProcessorSight(Sight):
    """Fits pictures by a model's own image processor, which knows what no config says.

    Args:
        processor: of transformers; Pillow resizes, on every machine alike.
        model: for messages.

    Raises:
        ConfigError: the processor has no size of its own.
    """

    def __init__(self, processor: Any, model: str) -> None:
        self._processor = processor
        shapes = {self._resized(np.zeros((8, n, 3), np.uint8)).shape for n in (8, 16)}
        shape = shapes.pop()
        if shapes or len(shape) != 3:
            raise ConfigError(
                f"box.model '{model}' takes images of any size; take a model of one size, such as "
                "'google/siglip2-base-patch16-224'"
            )
        super().__init__(shape[:2], std=_by_colour(processor, "image_std", 1.0))

    @property
    def name(self) -> str:
        """What decides how a picture is seen."""
        every = self._processor.to_dict()
        known = {key: every.get(key) for key in DECIDES} | {"std": self.std}
        known["mean"] = _by_colour(self._processor, "image_mean", 0.0)
        found = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
        return f"{self.size[0]}x{self.size[1]}-{found.hexdigest()[:8]}"

    def _fit(self, picture: Picture) -> Array:
        return self._resized(picture.pixels)

    def _resized(self, pixels: Array) -> Array:
        """(H, W, 3) uint8."""
        made = self._processor(images=[pixels], return_tensors="np", **RAW)["pixel_values"][0]
        return np.ascontiguousarray(np.moveaxis(made, 0, -1))


def _processor(path: str, config: Any) -> Any:
    """The model's image processor; CLIP's, for the model's size, where a folder has none."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise MissingExtra("pillow", "vision") from None
    import transformers

    folder = Path(path)
    if folder.is_dir() and not any((folder / name).is_file() for name in CONFIGS):
        side = config.vision_config.image_size
        crop = {"height": side, "width": side}
        return transformers.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop)
    try:
        return transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    except (ImportError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"the image processor of '{path}' cannot be loaded: {first}") from error


def _by_colour(processor: Any, key: str, none: float) -> tuple[float, float, float]:
    """One number each for red, green and blue; ``none`` if the processor does not normalise."""
    found = getattr(processor, key, None) if processor.do_normalize else None
    red, green, blue = (none,) * 3 if found is None else (float(one) for one in found)
    return red, green, blue


def _common(some: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(some, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(some), len(other)))
