"""Gradient prompt tuning: its steps, its merge, its selection, its count, and that it helps."""

import numpy as np
import pytest

from fedbbpt.baselines.white_box import WhiteBox
from fedbbpt.errors import ConfigError, Incompatible
from fedbbpt.maths.choose import choose
from fedbbpt.testing.toys import toy_box
from fedbbpt.types import RenderedPrompt, Update

LABEL, TEXT = "It was {label} .", "{text} All in all it was"
QUICK = {"rounds": 1, "steps": 2, "snapshots": 1}
NOTHING_HELD = {"holdout": 0.0}


def by_hand(box, start, batch, steps, lr):
    """Adam of torch on the box's own gradients, from zero."""
    torch = pytest.importorskip("torch")
    soft = torch.zeros(np.shape(start.soft), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([soft], lr=lr * box.vocabulary.std)
    for _ in range(steps):
        moved = RenderedPrompt(
            start.template, start.labels, start.side, tuple(soft.detach().numpy().astype("f4"))
        )
        soft.grad = torch.from_numpy(box.gradient(moved, batch.inputs, batch.targets)[1])
        adam.step()
    return soft.detach().numpy()


@pytest.mark.parametrize(
    ("template", "classes", "shape"),
    [(LABEL, 2, (1, 4, 8)), (LABEL, 3, (3, 4, 8)), (TEXT, 2, (1, 5, 8))],
)
def test_a_round_is_the_mean_of_the_clients_own_adam(attempt, slopes, template, classes, shape):
    """One prompt for all classes or one for each, as ``fedes`` has it; weights n_k."""
    options = {**QUICK, "lr": 0.1}
    tried = attempt(
        "white-box", slopes(), template, classes=classes, options=options, rounds=NOTHING_HELD
    )
    side = "text" if template == TEXT else "label"
    zero = tuple(np.zeros(shape, np.float32))
    start = RenderedPrompt(template, ("bad", "good", "odd")[:classes], side, zero)
    train = tried.split.train
    own = [by_hand(slopes(), start, batch, 2, 0.1) for batch in train.values()]
    sizes = [batch.size for batch in train.values()]
    assert sizes == [6, 8]
    want = np.average(own, axis=0, weights=sizes)
    assert tried.learned["soft"].shape == (1, *shape)
    np.testing.assert_allclose(tried.learned["soft"][0], want, rtol=0, atol=1e-5)
    assert np.abs(want).max() > 0.1


def test_it_learns(attempt, slopes):
    tried = attempt(
        "white-box",
        slopes(),
        "It was rather {label} .",
        classes=3,
        sizes=(12, 15),
        options={"rounds": 6, "steps": 1, "lr": 0.05},
    )
    losses = np.array([event["loss"] for event in tried.events("merge")][:6])
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.6 * losses[0]
    assert tried.result["tuned"]["loss"] < 0.7 * tried.result["baseline"]["loss"]
    assert tried.result["tuned"]["accuracy"] > tried.result["baseline"]["accuracy"]


def test_an_examples_gradient_is_a_query(attempt, slopes):
    options = {"rounds": 3, "steps": 2}
    tried = attempt("white-box", slopes(), LABEL, options=options)
    examples = sum(batch.size for batch in tried.split.train.values())
    queries = tried.result["queries"]
    assert queries["train"] == 3 * 2 * examples
    assert queries["dropped"] == 0
    assert queries["paid"] + queries["cached"] == sum(
        queries[purse] for purse in ("train", "select", "evaluation")
    )
    assert 0 < tried.result["seconds"]["box"] <= tried.result["seconds"]["search"]
    # Three rounds and the selection.
    assert tried.result["rounds"] == 4


def test_all_data_in_one_place(attempt, slopes):
    options = {**QUICK, "lr": 0.1}
    tried = attempt("white-box-central", slopes(), LABEL, options=options, rounds=NOTHING_HELD)
    assert tried.result["clients"] == 1
    (batch,) = [b for b in tried.split.train.values() if b.size]
    start = RenderedPrompt(LABEL, ("bad", "good"), "label", (np.zeros((4, 8), np.float32),))
    want = by_hand(slopes(), start, batch, 2, 0.1)
    np.testing.assert_allclose(tried.learned["soft"][0], want, rtol=0, atol=1e-5)


# --- selection -----------------------------------------------------------------------------------


class Told:
    """An exchange whose clients walk from 1 to 10 and whose held-back losses are given."""

    classes, hidden = 2, 8

    def __init__(self, losses):
        self.losses, self.walked, self.offered = np.array(losses), 0, None

    def holders(self, kind):
        return ["ash"] if kind == "train" or self.losses.size else []

    def ask(self, phase, arrays, clients):
        if phase == "white_train":
            self.walked += 1
            return [Update("ash", 0, 3.0, {"soft": np.full((1, 2, 2), self.walked)})]
        self.offered = arrays["soft"]
        sent = {"losses": self.losses, "squares": (self.losses - self.losses[-1]) ** 2}
        return [Update(name, 0, 9.0, sent) for name in clients]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([5, 4, 3, 2, 1], 10), ([5, 1, 3, 4, 5], 3), ([1, 4, 3, 2, 2], 0), ([], 10)],
)
def test_held_back_examples_choose_as_for_a_search(losses, kept):
    told = Told(losses)
    soft = WhiteBox(rounds=10, snapshots=4).fit(told)["soft"]
    assert soft.shape == (1, 1, 2, 2) and (soft == kept).all()
    if losses:
        # The starting prompt, and four prompts evenly on the way, the last among them.
        assert told.offered[:, 0, 0, 0].tolist() == [0, 3, 5, 8, 10]
        squares = (np.array(losses) - losses[-1]) ** 2
        assert told.offered[choose(told.losses, squares, 9.0), 0, 0, 0] == kept


# --- real networks -------------------------------------------------------------------------------


def test_a_masked_model(attempt, small_lm):
    words = {"bad": "terrible", "good": "great"}
    template = "{text} All in all it was {mask} ."
    options = {"rounds": 8, "steps": 2, "lr": 0.1}
    tried = attempt("white-box", small_lm(), template, options=options, prompt={"labels": words})
    losses = [event["loss"] for event in tried.events("merge") if event["loss"] is not None]
    assert losses[7] < 0.9 * losses[0]
    again = attempt(
        "white-box",
        small_lm(),
        template,
        options=options,
        prompt={"labels": words},
        engine={"threads": 2},
    )
    assert {**again.result, "seconds": 0} == {**tried.result, "seconds": 0}


@pytest.mark.parametrize("template", [LABEL, TEXT])
def test_a_sentence_encoder(attempt, minilm, template):
    options = {"rounds": 3, "steps": 2, "lr": 0.1}
    tried = attempt("white-box", minilm, template, classes=3, options=options)
    losses = [event["loss"] for event in tried.events("merge") if event["loss"] is not None]
    assert losses[0] > losses[1] > losses[2]


# --- what does not fit ---------------------------------------------------------------------------


def test_a_box_without_gradients_is_refused(attempt, tmp_path):
    with pytest.raises(Incompatible) as caught:
        attempt("white-box", toy_box(), LABEL)
    want = "white_box needs gradients, but function:toy gives only scores"
    assert str(caught.value) == want
    assert not list(tmp_path.iterdir())


def test_numbers_are_refused(attempt, slopes):
    rows = [("cold", "0.1", "ash"), ("warm", "0.9", "ash"), ("hot", "1.0", "ash")]
    scale = {"range": [0, 1]}
    with pytest.raises(Incompatible, match="learns classes, but the labels of this task are"):
        attempt("white-box", slopes(), LABEL, train=rows, test=rows, task="rate", data=scale)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rounds": 0}, "white_box rounds is 0; it must be at least 1"),
        ({"steps": 0}, "white_box steps is 0; it must be at least 1"),
        ({"snapshots": 0}, "white_box snapshots is 0; it must be at least 1"),
        ({"lr": 0.0}, "white_box lr is 0.0; it must be a positive number"),
        ({"lr": float("nan")}, "white_box lr is nan; it must be a positive number"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(ConfigError) as caught:
        WhiteBox(**options)
    assert str(caught.value) == sentence
