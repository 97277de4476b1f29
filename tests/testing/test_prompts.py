"""Every registered prompt keeps the laws, and the laws catch those that do not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.prompts._look import Look
from fedbbpt.prompts.instruction import Instruction
from fedbbpt.prompts.soft import Soft
from fedbbpt.prompts.tokens import Tokens
from fedbbpt.testing.boxes import EXAMPLES, TEMPLATES, WORDS
from fedbbpt.testing.prompts import LAWS, check_pixels, check_prompt, check_start, check_text
from fedbbpt.testing.toys import ToyVocabulary, toy_box
from fedbbpt.types import RenderedPrompt

# A prompt that is not named here is tried with its defaults.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "soft": [{}, {"dim": 5}, {"mode": "insert", "tokens": 3}],
    "tokens": [{}, {"slots": 1, "candidates": 9}, {"place": "after"}],
    "visual": [
        {},
        {"form": "patch", "waves": 3},
        {"form": "patch", "waves": 0},
        {"form": "frame", "width": 4},
        {"form": "frame", "width": 4, "waves": 0},
        {"form": "coordinator", "eps": 1.0},
    ],
    "instruction": [{"labels": ()}, {"labels": WORDS}],
}
SIDES = {"visual": [("image", False)], "instruction": [("text", False)]}
CASES = [
    pytest.param(name, options, side, per_class, id=f"{name}-{number}-{side}-{per_class}")
    for name in registry.names("prompts")
    for number, options in enumerate(OPTIONS.get(name, [{}]))
    for side, per_class in SIDES.get(name, [("label", False), ("label", True), ("text", False)])
]
SEEN = (12, 18)
POOL = ("Say it.", "Sing it.", "Spell it.")


class Eye:
    """How a box without a model sees."""

    size, std = SEEN, (0.2, 0.25, 0.3)


def make(name, options, side, per_class):
    if options.get("form") == "coordinator":
        pytest.importorskip("torch")
    if name == "instruction":
        own = Instruction("{instruction} {text}", instruction=POOL[0], **options)
        return own.grown(POOL, np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]))
    return registry.make(
        "prompts",
        name,
        options,
        "prompt",
        vocabulary=ToyVocabulary(),
        template=TEMPLATES[side],
        labels=WORDS,
        side=side,
        per_class=per_class,
        seed=3,
        vision=Eye(),
    )


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options", "side", "per_class"), CASES)
def test_registered(name, options, side, per_class, law):
    law(make(name, options, side, per_class))


@pytest.mark.parametrize("options", OPTIONS["visual"], ids=lambda o: "-".join(map(str, o.values())))
def test_visual_prompts_make_pictures_of_pictures(options):
    pytest.importorskip("PIL")
    check_pixels(make("visual", options, "image", False), SEEN)


@pytest.mark.parametrize(
    ("side", "per_class"), [("label", False), ("label", True), ("text", False)]
)
def test_a_soft_prompt_in_add_mode_starts_at_the_manual_prompt(side, per_class):
    prompt = make("soft", {"dim": 5}, side, per_class)
    check_start(prompt, RenderedPrompt(TEMPLATES[side], WORDS, side), toy_box(), EXAMPLES)
    with pytest.raises(AssertionError, match="off those of the start"):
        other = RenderedPrompt("Not " + TEMPLATES[side], WORDS, side)
        check_start(prompt, other, toy_box(), EXAMPLES)


# --- each law catches one that breaks it ---------------------------------------------------------


class Broken(Soft):
    """A prompt to be spoilt in one place, and made of parts that BLAS cannot round differently."""

    def __init__(self, **options):
        super().__init__(ToyVocabulary(), TEMPLATES["label"], WORDS, dim=3, **options)

    def render(self, points):
        return [super(Broken, self).render(point[None])[0] for point in points]


class Drops(Broken):
    def render(self, points):
        return super().render(points[1:])


class SaysText(Broken):
    sends = frozenset({"text"})


class Counts(Broken):
    def render(self, points):
        self.calls = getattr(self, "calls", 0) + 1
        return super().render(points + self.calls)


class Centres(Broken):
    """Measures every point from the middle of those beside it."""

    def render(self, points):
        return super().render(points - points.mean(axis=0))


class Starts(Instruction):
    """Keeps the user's own instruction elsewhere than at zero."""

    def __init__(self, per_class=False):
        super().__init__("{instruction} {text}", (), POOL[0])
        self._take(POOL, np.array([[1.0], [0.0], [2.0]]))


class Rounds(Broken):
    def render(self, points):
        return super().render(np.zeros_like(points))


class Mixes(Broken):
    """Has tokens for two classes of three."""

    def render(self, points):
        return [replace(p, tokens=((1,), (2,))) for p in super().render(points)]


class Nowhere(Broken):
    def render(self, points):
        return [replace(p, place="above") for p in super().render(points)]


class Mumbles(Broken):
    def read(self, prompt):
        return ("one", "two")


class Mute(Tokens):
    def read(self, prompt):
        return ()


class Lingers(Broken):
    """Keeps the array that it was given."""

    def render(self, points):
        return [Late(self, point) for point in points]


class Late:
    def __init__(self, prompt, point):
        self.prompt, self.point = prompt, point

    def __getattr__(self, name):
        return getattr(super(Broken, self.prompt).render(self.point[None])[0], name)


class Spreads(Broken):
    """Lets every class feel every row."""

    def render(self, points):
        return super().render(points + points.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Drops, "5 points gave 4 prompts"),
        (SaysText, "sends is"),
        (Counts, "different prompts"),
        (Centres, "at a time"),
        (Rounds, "not its numbers|equal keys"),
        (Spreads, "changed the prompts of"),
        (Mixes, "2 tokens prompts for"),
        (Nowhere, "tokens stand 'above' the template"),
        (Mumbles, "2 texts were read"),
        (Lingers, "changes with the array"),
        (Starts, "is not the zero point"),
    ],
)
def test_the_kit_catches(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_prompt(broken(per_class=broken is Spreads))


def test_the_kit_catches_a_text_that_is_read_otherwise():
    vocabulary = ToyVocabulary()
    prompt = Tokens(vocabulary, TEMPLATES["label"], WORDS)
    check_text(prompt, vocabulary)
    with pytest.raises(AssertionError, match="was read as"):
        check_text(prompt, ToyVocabulary(size=40))
    with pytest.raises(AssertionError, match=r"was read as \(\)"):
        check_text(Mute(vocabulary, TEMPLATES["label"], WORDS), vocabulary)


class Spoilt(Look):
    """Nine numbers of which one thing is done wrongly."""

    def on(self, images, pictures):
        return self.spoil(super().on(images, pictures), images)


class Leaves(Spoilt):
    def spoil(self, seen, images):
        return seen + np.float32(0.1)


class Grows(Spoilt):
    def spoil(self, seen, images):
        return seen.astype(np.float64)


class Writes(Spoilt):
    def spoil(self, seen, images):
        images[:] = seen
        return seen


class Averages(Spoilt):
    """As batch normalisation does."""

    def spoil(self, seen, images):
        return 0.5 * seen + 0.5 * seen.mean(axis=0)


class Forgets(Spoilt):
    @property
    def arrays(self):
        return {"look": np.zeros(9)}

    def spoil(self, seen, images):
        return seen


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        (Leaves, "left the range"),
        (Grows, "became float64"),
        (Writes, "changed the pictures"),
        (Averages, "depends on those beside it"),
        (Forgets, "another key"),
    ],
)
def test_the_kit_catches_pictures_that_are_none(spoilt, sentence, monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.setattr("fedbbpt.prompts.visual.Look", spoilt)
    with pytest.raises(AssertionError, match=sentence):
        check_pixels(make("visual", {}, "image", False), SEEN)


def test_check_prompt_tries_everything():
    check_prompt(Broken())
