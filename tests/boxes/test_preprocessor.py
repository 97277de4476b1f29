"""A model's own preprocessor_config.json is followed as transformers follows it, or refused."""

import json
import re

import numpy as np
import pytest

from fedbbpt.boxes._preprocessor import NAME, Wanted, wanted
from fedbbpt.boxes._sight import Sight
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.errors import ConfigError
from fedbbpt.testing._pictures import PICTURES
from fedbbpt.types import Picture

pytest.importorskip("PIL")

RNG = np.random.default_rng(0)
LARGE = tuple(
    Picture(RNG.integers(0, 256, (*size, 3), np.uint8)) for size in ((70, 90), (55, 41), (64, 64))
)
PLAIN = {"size": {"height": 24, "width": 24}}

PROCESSORS = {
    "squash": ("ViT", {"size": {"height": 24, "width": 30}, "resample": 2}),
    "halves": ("ViT", {**PLAIN, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}),
    "raw": ("ViT", {**PLAIN, "do_rescale": False, "do_normalize": False}),
    "unscaled": ("ViT", {**PLAIN, "do_normalize": False}),
    "bytes": (
        "ViT",
        {**PLAIN, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [50] * 3},
    ),
    "crop": ("CLIP", {"size": {"shortest_edge": 27}, "crop_size": {"height": 24, "width": 24}}),
    "wide crop": (
        "CLIP",
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 28}},
    ),
    "square crop": (
        "DeiT",
        {"size": {"height": 27, "width": 27}, "crop_size": {"height": 24, "width": 24}},
    ),
    "share": ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "share of much": ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
    "share and crop": (
        "PoolFormer",
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "crop_pct": 0.9},
    ),
    "mobile": (
        "MobileNetV2",
        {"size": {"shortest_edge": 27}, "crop_size": {"height": 24, "width": 24}},
    ),
}


def write(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / NAME).write_text(text, encoding="utf-8")
    return folder / "model.onnx"


@pytest.mark.parametrize("name", PROCESSORS)
def test_as_transformers(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    kind, options = PROCESSORS[name]
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**options)
    processor.save_pretrained(tmp_path)
    found = wanted(tmp_path / "model.onnx")
    sight = Sight(found.size, found.way, found.edge, found.resample)
    for picture in (*PICTURES, *LARGE):
        asked = {"return_tensors": "np", "input_data_format": "channels_last"}
        made = processor(images=[picture.pixels], **asked)["pixel_values"][0]
        assert made.shape[1:] == found.size
        given = (sight.fit(picture) - np.array(found.mean)) / np.array(found.std)
        reach = max(1.0, np.abs(made).max())
        np.testing.assert_allclose(given.transpose(2, 0, 1), made, rtol=0, atol=2e-6 * reach)


@pytest.fixture
def read(tmp_path):
    """What is made of a config."""
    return lambda config: wanted(write(tmp_path, config))


def test_older_files_say_a_number(read):
    cropped = read({"size": 24, "crop_size": 20, "do_center_crop": True, "resample": 3})
    assert cropped[:4] == ((20, 20), "crop", 24, 3)
    assert read({"size": 24})[:4] == ((24, 24), "squash", 0, 2)
    assert read({"size": 28, "crop_pct": 0.875})[:4] == ((28, 28), "crop", 32, 2)


def test_a_range_from_minus_one_to_one(read):
    changes = {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}
    found = read(PLAIN | changes)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)


def test_where_it_is_looked_for(tmp_path):
    write(tmp_path, PLAIN)
    assert wanted(tmp_path / "onnx" / "model.onnx").size == (24, 24)
    assert wanted(tmp_path / "other" / "model.onnx") == Wanted()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "Expecting property name"),
        ("[1]", "it holds a list and no table"),
        ({}, "it lacks 'size'"),
        ({"size": "large"}, "its size is 'large'"),
        ({"size": {"longest_edge": 3}}, "its size is {'longest_edge': 3}"),
        ({"size": {"height": 0, "width": 3}}, "its size is {'height': 0, 'width': 3}"),
        ({"size": {"shortest_edge": 24}}, "it leaves pictures of different sizes"),
        ({"size": 24, "do_center_crop": True}, "it lacks 'crop_size'"),
        (PLAIN | {"do_resize": False}, "it leaves pictures as large as they are"),
        (PLAIN | {"do_flip_channel_order": True}, "it asks for blue, green, red"),
        (PLAIN | {"resample": 9}, "its resample is 9; known: 0 to 5"),
        (PLAIN | {"image_mean": [0.5]}, "three numbers"),
        (PLAIN | {"image_std": 0.5}, "three numbers"),
        (PLAIN | {"image_std": [0, 1, 1]}, "above 0"),
        (
            {"size": {"height": 24, "width": 30}, "do_center_crop": True, "crop_size": 20},
            "it scales to 24x30 and crops that",
        ),
    ],
)
def test_what_cannot_be_followed(read, config, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        read(config)
    assert f"{NAME} cannot be followed: " in str(caught.value) and "\n" not in str(caught.value)


def test_the_options_go_before_the_file(tmp_path):
    """What a callable would get is what Sight makes; a file's own numbers are in the name."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, real = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        make.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    pixels = make.make_tensor_value_info("pixels", real, [1, 3, "H", "W"])
    logits = make.make_tensor_value_info("logits", real, [1, 3])
    graph = make.make_graph(nodes, "means", [pixels], [logits])
    whole = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    own = {"size": {"shortest_edge": 27}, "crop_size": 24, "do_center_crop": True, "resample": 3}
    path = write(tmp_path, own | {"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    onnx.save(whole, str(path))

    def box(**options):
        return ImageClassifier(str(path), ("a", "b", "c"), scores="logits", **options)

    assert box().vision.name == "crop27-24x24-3" and box().vision.std == (0.25,) * 3
    assert box().name.count("[0.5, 0.5, 0.5, 0.25, 0.25, 0.25]") == 1
    assert box(resize="squash").vision.name == "squash-24x24-3"
    assert box(resize="crop").vision.name == "crop27-24x24-3"
    assert box(edge=30).vision.name == "crop30-24x24-3"
    assert box(resize="squash", size=(20, 22)).vision.name == "squash-20x22-3"
    assert "[0.5, 0.5, 0.5, 1, 2, 3]" in box(std=(1, 2, 3)).name
    said = rf"the {NAME} of model-.* makes images of \(24, 24\), but .* takes \(20, 20\)"
    with pytest.raises(ConfigError, match=said):
        box(size=(20, 20))
