"""The coordinator: an own prompt for each picture, from a frozen encoder and a light decoder."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from shutil import copytree

import numpy as np
import pytest

from fedbbpt.artefact import load, save
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.prompts import _coordinator
from fedbbpt.prompts._coordinator import Coordinator
from fedbbpt.prompts.visual import Visual
from fedbbpt.types import Picture

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")


class Eye:
    def __init__(self, size=(20, 24)):
        self.size, self.std = size, (0.2, 0.25, 0.3)


def make(encoder="pixels", size=(20, 24), **options):
    return Visual(Eye(size), "", ["bad", "good"], form="coordinator", encoder=encoder, **options)


def pictures(count=5):
    numbers = np.random.default_rng(0)
    return [Picture(numbers.integers(0, 256, (9 + i, 13, 3), np.uint8)) for i in range(count)]


def images(count=5, size=(20, 24)):
    return np.random.default_rng(1).uniform(0, 1, (count, *size, 3)).astype(np.float32)


def moved(prompt, scale=0.3, seed=2):
    """One prompt far enough from the start to be seen."""
    point = scale * np.random.default_rng(seed).standard_normal((1, *prompt.space.shape))
    return prompt.render(point)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(kind) -> a tiny random vision model on disk."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "image_size": 16, "patch_size": 4}
    decoder = {f"decoder_{key}": value for key, value in small.items() if "size" in key[:12]}
    decoder |= {"decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    made = {}

    def network(kind):
        if kind == "vit":
            return transformers.ViTModel(transformers.ViTConfig(**small))
        if kind == "mae":
            return transformers.ViTMAEModel(transformers.ViTMAEConfig(**small, **decoder))
        if kind == "clip":
            config = transformers.CLIPConfig(
                text_config={**small, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1},
                vision_config=small,
            )
            return transformers.CLIPModel(config)
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        return transformers.ResNetModel(transformers.ResNetConfig(**sizes, layer_type="basic"))

    def get(kind, seed=0):
        if (kind, seed) not in made:
            torch.manual_seed(seed)
            path = tmp_path_factory.mktemp(kind)
            network(kind).save_pretrained(path)
            size = {"height": 16, "width": 16}
            facts = {"image_processor_type": "ViTImageProcessor", "size": size}
            (path / "preprocessor_config.json").write_text(json.dumps(facts))
            made[kind, seed] = str(path)
        return made[kind, seed]

    return get


# --- the decoder ---------------------------------------------------------------------------------


def test_a_light_decoder():
    prompt = make()
    assert prompt.space.shape == (8448,) == (prompt.coordinator.parameters,)
    weights = moved(prompt).visual.weights
    assert weights.shape == (8448,) and weights.dtype == np.float32
    # Codes that do not fit into 32 channels get more of them.
    wide = Coordinator("pixels", (20, 24), (1.0, 1.0, 1.0), 1.0, 0)
    assert wide.trigger == 32 * 49 - 768


def test_nothing_learned_is_nothing_changed_but_all_else_is_in_place():
    prompt = make(eps=1.0)
    start = prompt.coordinator.at(np.zeros(prompt.space.shape))
    np.testing.assert_array_equal(start.on(images(), pictures()), images())
    # The last layer alone, and pictures differ in what they get.
    point = np.zeros(prompt.space.shape)
    point[-16 * 3 * 4 :] = 0.5
    added = prompt.coordinator.paint(prompt.coordinator.at(point).weights, pictures())
    assert added.shape == (5, 20, 24, 3) and np.abs(added).mean() > 0.01
    apart = [np.abs(a - b).mean() for i, a in enumerate(added) for b in added[:i]]
    assert min(apart) > 0.05 * np.abs(added).mean()


def test_eps_and_std_scale_what_is_added():
    added = []
    for eps in (0.1, 0.2):
        prompt = make(eps=eps)
        visual = moved(prompt).visual
        added.append(prompt.coordinator.paint(visual.weights, pictures()))
    np.testing.assert_allclose(added[1], 2 * added[0], rtol=1e-5)
    plain = Coordinator("pixels", (20, 24), (1.0, 1.0, 1.0), 0.1, 0)
    point = 0.3 * np.random.default_rng(2).standard_normal(8448)
    bare = plain.paint(plain.at(point).weights, pictures())
    np.testing.assert_allclose(added[0], bare * np.array([0.2, 0.25, 0.3]), rtol=1e-4, atol=1e-7)


def test_a_picture_gets_the_same_in_any_company():
    """The published batch normalisation moves it by 89 %."""
    visual = moved(make(eps=1.0)).visual
    whole = visual.on(images(), pictures())
    assert np.abs(whole - images()).max() > 0.1
    shown = pictures()
    for rows in ([0], [3, 0], [4, 2, 0, 1]):
        seen = visual.on(images()[rows], [shown[i] for i in rows])
        np.testing.assert_array_equal(seen, whole[rows])


@pytest.mark.parametrize("size", [(20, 24), (224, 224), (96, 130)])
def test_threads_change_no_bit(size):
    """Neither several clients at work at once, nor torch's own threads."""
    visual, shown, given = moved(make(size=size)).visual, pictures(), images(5, size)
    whole = visual.on(given, shown)
    with ThreadPoolExecutor(3) as pool:
        for seen in pool.map(lambda _: visual.on(given, shown), range(6)):
            np.testing.assert_array_equal(seen, whole)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(visual.on(given, shown), whole)
    finally:
        torch.set_num_threads(before)


def test_pictures_are_stretched_in_straight_lines():
    made = np.random.default_rng(0).uniform(size=(2, 9, 7, 3)).astype(np.float32)
    for size in ((20, 30), (5, 4), (9, 7)):
        ours = made
        for axis, length in enumerate(size, start=1):
            ours = _coordinator._stretched(ours, axis, length)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(made).permute(0, 3, 1, 2), size, mode="bilinear"
        )
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def test_the_seed_makes_the_first_weights():
    starts = [make(seed=seed).coordinator.start for seed in (0, 0, 1)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0] != starts[2]).mean() > 0.8
    trigger = starts[0][:800]
    assert 0 <= trigger.min() and 0.09 < trigger.max() <= 0.1 and trigger.std() > 0.02


def test_gradients_reach_every_layer():
    """A step on any part of the decoder changes pictures, once the last layer is not zero."""
    prompt = make(eps=1.0)
    coordinator, point = prompt.coordinator, np.zeros(prompt.space.shape)
    point[-192:] = 0.5
    whole = coordinator.paint(coordinator.at(point).weights, pictures())
    cuts = np.cumsum([coordinator.trigger, *(np.prod(s) for s in coordinator.shapes)])
    for begin, end in zip([0, *cuts[:-1]], cuts, strict=True):
        one = point.copy()
        one[begin:end] += np.random.default_rng(0).normal(0, 0.3, end - begin)
        assert np.abs(coordinator.paint(coordinator.at(one).weights, pictures()) - whole).max() > 0


# --- encoders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "mae", "resnet"])
def test_a_transformers_folder(folder, kind):
    prompt = make(folder(kind), eps=1.0)
    encoder = prompt.coordinator.encoder
    assert encoder.width == 16 and 8000 < prompt.space.shape[0] < 11000
    codes = [encoder.code(picture) for picture in pictures()]
    assert np.ptp(codes, axis=0).max() > 0
    # ViT-MAE would shuffle by chance.
    again = [encoder._code(picture) for picture in pictures()]
    np.testing.assert_array_equal(codes, again)
    visual = moved(prompt).visual
    whole = visual.on(images(), pictures())
    np.testing.assert_array_equal(visual.on(images()[:1], pictures()[:1]), whole[:1])


def test_the_code_is_that_of_the_model_itself(folder):
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModel.from_pretrained(folder("vit")).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder("vit"))
    encoder = make(folder("vit")).coordinator.encoder
    for picture in pictures(2):
        given = processor(images=[picture.pixels], return_tensors="pt")
        with torch.inference_mode():
            first = network(**given).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(encoder.code(picture), first, atol=1e-6)


def test_vit_mae_sees_all_of_the_picture(folder):
    encoder = make(folder("mae")).coordinator.encoder
    shown = pictures(1)[0].pixels.repeat(3, 0).repeat(3, 1)
    code = encoder.code(Picture(shown))
    for rows in (slice(0, 13), slice(13, None)):
        for columns in (slice(0, 19), slice(19, None)):
            other = shown.copy()
            other[rows, columns] = 255 - other[rows, columns]
            assert np.abs(encoder.code(Picture(other)) - code).max() > 1e-4


def test_encoders_that_are_none(folder, tmp_path):
    with pytest.raises(ConfigError, match=f"'{tmp_path}' cannot be used: "):
        make(str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be used: .*; name a transformers vision model"):
        make(folder("clip"))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_library_that_is_missing(monkeypatch, package, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed; .*fedbbpt\[hf\]"):
        make(str(tmp_path))
    if package == "transformers":
        make("pixels")  # needs none


# --- kept and made again -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pixels", "mae"])
def test_the_artefact_gives_the_same_pixels(folder, kind, tmp_path):
    prompt = make("pixels" if kind == "pixels" else folder(kind), eps=1, seed=5)
    rendered = moved(prompt)
    save(tmp_path, rendered, np.zeros(prompt.space.shape), {})
    again, facts = load(tmp_path)
    assert facts["parameters"] == prompt.space.shape[0] and again.keys == rendered.keys
    assert facts["bytes"] == (tmp_path / "prompt.safetensors").stat().st_size > 4 * 8448
    np.testing.assert_array_equal(
        again.visual.on(images(), pictures()), rendered.visual.on(images(), pictures())
    )


def test_another_model_under_the_same_name_is_refused(folder, tmp_path):
    place = tmp_path / "encoder"
    copytree(folder("vit"), place)
    prompt = make(str(place))
    save(tmp_path / "prompt", moved(prompt), np.zeros(prompt.space.shape), {})
    load(tmp_path / "prompt")
    copytree(folder("vit", seed=1), place, dirs_exist_ok=True)
    _coordinator._encoder.cache_clear()
    with pytest.raises(ConfigError, match="is not the model that the prompt was tuned with"):
        load(tmp_path / "prompt")
    assert make(str(place)).coordinator.at(np.ones(1)).key != prompt.coordinator.at(np.ones(1)).key
