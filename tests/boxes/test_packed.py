"""What of a grid goes over a wire to a gateway, and comes out there."""

import numpy as np
import pytest

from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._forms import Pairs, Prompted
from fedbbpt.boxes._packed import pack, pack_arrays, pack_prompt, pack_rows, unpack, unpack_rows
from fedbbpt.errors import ConfigError
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.types import RenderedPrompt

PROMPT = RenderedPrompt("a photo of a {label}.", ("cat", "dog"))
ASKED = RenderedPrompt("", ("cat", "dog"), "image")


@pytest.mark.parametrize("form", [Dual("box", 10.0, 4, True), Pairs("box")], ids=lambda f: f.kind)
@pytest.mark.parametrize("prompt", [PROMPT, ASKED])
def test_pictures_arrive_with_their_keys_and_without_their_names(form, prompt):
    atoms = form.split([prompt], [*PICTURES, PICTURES[0]]).atoms
    sent = pack(form, atoms, [1, 0])
    assert len(sent["examples"]) == len(PICTURES) + 2 * (form.kind == "dual" and prompt is ASKED)
    assert not any(picture.name in repr(sent) for picture in PICTURES)
    got, wanted = unpack(form, sent)
    assert [atom.key for atom in got] == [atom.key for atom in atoms] and wanted == [1, 0]
    seen = [x for x in (form.content(a).example for a in got) if x is not None]
    arrived = [x for x in seen if not isinstance(x, str)]
    for one, picture in zip(arrived, PICTURES, strict=True):
        np.testing.assert_array_equal(one.pixels, picture.pixels)


def test_a_visual_prompt_is_not_sent():
    with pytest.raises(ConfigError, match="takes no visual prompts"):
        pack_prompt(RenderedPrompt("", ("a", "b"), "image", visual=Shade(0.1)), {})


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=lambda p: f"{p.dtype}{p.shape}",
)
def test_what_is_sent_as_a_picture_must_be_one(pixels):
    sent = {
        "prompts": [],
        "examples": [{"picture": "p"}],
        "atoms": [(-1, -1, 0)],
        "wanted": [0],
        "arrays": pack_arrays({"p": pixels}),
    }
    with pytest.raises(ConfigError, match="it must be uint8 of"):
        unpack(Dual("box", 10.0, 4, True), sent)
    with pytest.raises(ConfigError, match="'q', which was not sent"):
        unpack(Dual("box", 10.0, 4, True), sent | {"examples": [{"picture": "q"}]})


@pytest.mark.parametrize(
    "form", [Dual("box", 10.0, 4), Prompted("box")], ids=lambda form: form.kind
)
def test_a_box_of_texts_is_sent_no_picture(form):
    sender = Pairs("box")
    text = RenderedPrompt("{text} it was", ("bad", "good"), "text")
    sent = pack(sender, sender.split([text], PICTURES[:1]).atoms, [0])
    with pytest.raises(ConfigError, match="none that this box can answer"):
        unpack(form, sent)


def test_a_box_of_pictures_is_sent_no_prompted_text():
    sender = Dual("box", 10.0, 4)
    text = RenderedPrompt("{text} it was", ("bad", "good"), "text")
    atoms = [sender.example(text, "a text")]
    with pytest.raises(ConfigError, match="none that this box can answer"):
        unpack(Dual("box", 10.0, 4, True), pack(sender, atoms, [0]))


@pytest.mark.parametrize("count", [0, 1, 6])
def test_rows_of_numbers_and_of_bytes_come_out_as_they_were(count):
    words = [np.frombuffer(bytes(range(200, 216 + n)), np.uint8) for n in range(2)]
    rows = [np.array([1.5, -2.0]), words[0], np.array([np.nan]), words[1], np.zeros(3), words[0]]
    for some in (rows[:count], words[:count], rows[::2][:count]):
        got = unpack_rows(pack_rows(some))
        assert [(row.dtype, row.tobytes()) for row in got] == [
            (row.dtype, row.tobytes()) for row in some
        ]
