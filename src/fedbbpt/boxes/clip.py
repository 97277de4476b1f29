"""CLIP, SigLIP and their kin as a black box: an image's class is the one whose text is nearest.

Images and class texts meet only in the last dot product. So with the prompt on the label side, as
CoOp has it (Zhou et al., IJCV 2022), an image is paid once for ever and a candidate costs one atom
per class, however many images a client holds. On the image side every prompted image is an atom,
and the class texts are paid once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._clip import ProcessorSight, Towers
from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._forms import PICTURE
from fedbbpt.boxes._transformers import batches, check_sizes
from fedbbpt.boxes._two_sided import TwoSided
from fedbbpt.types import Atom, Picture, RenderedPrompt


class Clip(TwoSided):
    """A local image-text model behind the box protocol.

    Scores are log-softmax(exp(logit_scale) * cosine) of image and class text, the label in the
    prompt's template. Images are resized and cropped by the model's own image processor, with
    Pillow; a folder without one (``preprocessor_config.json``) gets CLIP's: the shorter side
    resized to the vision config's ``image_size``, the middle cut out, CLIP's mean and standard
    deviation.

    Args:
        model: a folder or a hub name of a transformers model that encodes both images and texts
            and takes images of one size, such as ``"openai/clip-vit-base-patch32"``.
        dtype: ``"auto"`` (bfloat16 where the hardware has it), ``"float32"`` or ``"bfloat16"``.
        device: ``"auto"`` (a GPU where there is one) or any torch device.
        rows: most rows in one forward pass, of texts or images.
        threads: torch threads; 0 leaves torch's own choice.

    Raises:
        MissingExtra: torch, transformers or Pillow is not installed.
        ConfigError: the model cannot be found, or is none that encodes images and texts.
    """

    accepts = frozenset({"soft", "tokens", "text", "image"})
    sides = frozenset({"label", "image"})
    gives = frozenset({"scores", "embeddings", "gradients"})
    vision: ProcessorSight

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        rows: int = 32,
        threads: int = 0,
    ) -> None:
        towers = Towers(model, dtype, device, threads)
        check_sizes(model, rows, towers.limit, towers.limit)
        self.towers, self.vision = towers, towers.sight
        form = Dual(f"clip:{towers.name}:{towers.sight.name}", towers.scale, towers.hidden, True)
        words = towers.vocabulary
        self._set_up(form, towers, (words.front, words.back), rows, towers.limit)

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuses a template that is too long for the text tower."""
        if prompt.side == "label":
            for atom in self.form.labels(prompt):
                self._inputs(atom)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(H,) float32 unit vectors of the wanted atoms."""
        rows: dict[int, Array] = {}
        seen = [i for i, atom in enumerate(atoms) if atom.data[0] == PICTURE]
        for batch in batches(seen, lambda i: 0, self.rows, wanted):
            images = self._composed([atoms[i] for i in batch])
            with self._lock:
                vectors = self.towers.see(images)
            rows.update(zip(batch, vectors, strict=True))
        read = [i for i in wanted if atoms[i].data[0] != PICTURE]
        rows.update(zip(read, super().evaluate(atoms, read), strict=True))
        return [rows[i] for i in wanted]

    def _composed(self, atoms: Sequence[Atom]) -> Array:
        """(B, height, width, 3) float32 in [0, 1]: fitted pictures, within their prompts."""
        images = np.array([self.vision.fit(atom.data[1]) for atom in atoms])
        groups: dict[int, list[int]] = {}
        for i, atom in enumerate(atoms):
            groups.setdefault(id(atom.data[2]), []).append(i)
        for group in groups.values():
            prompt: RenderedPrompt | None = atoms[group[0]].data[2]
            if prompt is not None and prompt.visual is not None:
                pictures: list[Picture] = [atoms[i].data[1] for i in group]
                images[group] = prompt.visual.on(images[group], pictures)
        return images
