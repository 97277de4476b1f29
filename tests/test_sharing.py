"""Pictures are shared out as texts are, and what is lacking is said."""

import numpy as np
import pytest

import fedbbpt
from fedbbpt.config import resolve
from fedbbpt.data.load import Table
from fedbbpt.errors import ConfigError, DataError
from fedbbpt.gather import gather
from fedbbpt.sections import Data
from fedbbpt.sharing import EVERYONE, TESTER, examples, only, share_out, tables
from fedbbpt.testing.toys import ToyEncoder
from fedbbpt.types import Picture


def pictures(count):
    """Pairs of equal ones among them: two pictures may well have the same pixels."""
    return tuple(Picture(np.full((2, 3, 3), i // 2, np.uint8), f"{i}.png") for i in range(count))


def shared(tmp_path, sites=True, skipped=(), test=None, **sections):
    labels = tuple("abc"[i % 3] for i in range(36))
    owners = tuple(("north", "south")[i % 2] for i in range(36)) if sites else None
    tree = {"data": {"train": ""}, "prompt": {"template": "{label}"}, **sections}
    table = Table(pictures(36), labels, owners, skipped)
    return table, share_out(resolve(tree, tmp_path), table, test)


def names(batches):
    return sorted(one.name for batch in batches.values() for one in batch.inputs)


@pytest.mark.parametrize("kind", ["column", "iid", "dirichlet", "pathological"])
def test_every_picture_goes_to_one_client_with_its_label(tmp_path, kind):
    table, split = shared(tmp_path, partition={"kind": kind, "clients": 3, "alpha": 5.0})
    label = dict(zip((one.name for one in table.inputs), table.labels, strict=True))
    assert names(split.train | {f"{k}-": v for k, v in split.holdout.items()}) == sorted(label)
    for batch in (*split.train.values(), *split.holdout.values()):
        assert [split.classes[t] for t in batch.targets] == [label[x.name] for x in batch.inputs]
    assert split.pictures and split.notes == ()


def test_shots_pooling_and_one_client(tmp_path):
    _, split = shared(tmp_path, partition={"kind": "iid", "clients": 2, "shots": 4})
    assert sum(b.size for p in (split.train, split.holdout) for b in p.values()) == 12
    _, pooled = shared(tmp_path, skipped=("x: torn",), method={"clients": "pooled"})
    _, whole = shared(tmp_path, skipped=("x: torn",))
    assert pooled.clients == (EVERYONE,) and names(pooled.train) == names(whole.train)
    one = only(whole, "south")
    assert one.clients == ("south",) and one.train["south"] is whole.train["south"]
    assert pooled.notes == whole.notes == one.notes != ()


def test_a_limited_test_is_counted_before_it_is_cut(tmp_path):
    test = Table(pictures(20), ("a", "b") * 10, None, ("z.png: truncated",))
    _, split = shared(tmp_path, test=test, data={"train": "", "test_limit": 5})
    assert split.test[TESTER].size == 5
    assert split.notes == (
        "1 of 21 test images could not be read and were left out: z.png (truncated)",
    )


def test_what_is_lacking_is_said_in_a_sentence_each(tmp_path):
    skipped = tuple(f"{i}: with: colons.png: truncated" for i in range(7))
    labels = tuple("a" if i % 2 else "abcdefgh"[i // 2 % 8] for i in range(36))
    owners = tuple(("north", "south")[i % 2] for i in range(36))
    config = resolve({"data": {"train": ""}, "prompt": {"template": "{label}"}}, tmp_path)
    split = share_out(config, Table(pictures(36), labels, owners, skipped), None)
    left_out, lacking = split.notes
    first = ", ".join(f"{i}: with: colons.png (truncated)" for i in range(5))
    said = "7 of 43 training images could not be read and were left out: "
    assert left_out == f"{said}{first}, ..."
    assert lacking == "1 of 2 sites hold no images of some classes: south (b, c, d, e, f, ...)"
    texts = Table(tuple(map(str, range(36))), labels, owners)
    assert share_out(config, texts, None).notes == ()


def test_images_are_no_corpus_of_words(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "public" / "a").mkdir(parents=True)
    image.new("RGB", (4, 4)).save(tmp_path / "public" / "a" / "1.png")
    prompt = {"kind": "tokens", "template": "{label}", "vocabulary": "public", "public": "public"}
    config = resolve({"data": {"train": ""}, "prompt": prompt}, tmp_path)
    with pytest.raises(ConfigError, match=r"prompt\.public '.*public' holds images"):
        gather(config, {})


def test_a_column_of_images_is_none_of_a_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "train" / "a").mkdir(parents=True)
    image.new("RGB", (4, 4)).save(tmp_path / "train" / "a" / "1.png")
    tree = {"data": {"train": "train", "image": "path"}, "prompt": {"side": "image"}}
    with pytest.raises(
        ConfigError, match=r"data\.image names the column 'path', but .*train hold images by class"
    ):
        examples(resolve(tree, tmp_path))


# --- lists from Python ---------------------------------------------------------------------------


def test_lists_of_images_in_any_form(tmp_path):
    image = pytest.importorskip("PIL.Image")
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image.fromarray(array).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    forms = [array, array / 255, image.fromarray(array), tmp_path / "a.png", Picture(array)]
    pairs = [(form, "ab"[i % 2]) for i, form in enumerate(forms)]
    train, test = tables({"north": [*pairs, (tmp_path / "b.png", "a")]}, pairs[:2])
    assert {one.key for one in train.inputs} == {Picture(array).key}
    assert train.labels == ("a", "b", "a", "b", "a") and train.sites == ("north",) * 5
    assert train.skipped == (f"{tmp_path / 'b.png'}: empty file",)
    assert len(test.inputs) == 2 and test.sites is None
    small, _ = tables({"north": pairs[:4]}, (), Data(train="", pixels=2))
    assert [one.pixels.shape for one in small.inputs] == [(2, 2, 3)] * 4
    with pytest.raises(DataError, match=r"b\.png cannot be read \(empty file\)"):
        tables({"north": [(tmp_path / "b.png", "a")]}, (), Data(train="", corrupt="refuse"))
    with pytest.raises(DataError, match="the site 'south' has no image"):
        tables({"north": pairs, "south": [(tmp_path / "b.png", "a")]}, ())
    with pytest.raises(DataError, match=r"image 2 of north cannot be used.*\(4, 5, 7\)"):
        tables({"north": [pairs[0], (np.zeros((4, 5, 7), np.uint8), "a")]}, ())


def test_answers_in_words_are_a_text_or_all_that_are_right(tmp_path):
    clients = {
        " north": [("cat", "cats"), ("7", ["seven", "VII", "seven"])],
        "south": [("a", ("b",))],
    }
    train, test = tables(clients, [("mouse", "mice"), ("x", 5)], task="generate")
    assert train.references == (("cats",), ("seven", "VII"), ("b",))
    assert train.labels == ("cats", "seven", "b") and train.sites == (" north", " north", "south")
    assert test.references == (("mice",), ("5",)) and test.sites is None
    config = resolve(
        {
            "task": "generate",
            "data": {"train": ""},
            "prompt": {"template": "{text}", "side": "text"},
            "rounds": {"holdout": 0.0},
        },
        tmp_path,
    )
    split = share_out(config, train, test)
    assert split.classes == () and split.clients == (" north", "south")
    assert split.train[" north"].targets.tolist() == [("cats",), ("seven", "VII")]
    assert split.test[TESTER].targets.tolist() == [("mice",), ("5",)]


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("cat", []), "example 2 of north: 'answer' holds no answer"),
        (("cat", " "), "'answer' holds no answer"),
        (("cat", ["cats", ""]), "'answer' holds an empty answer"),
        (("cat", None), "'answer' holds no answer"),
        (("cat", {"a": 1}), "'answer' holds a value of type dict"),
        ((" ", "cats"), "'input' is empty"),
        ((np.zeros((2, 2, 3), np.uint8), "cats"), "'input' holds a value of type ndarray"),
    ],
)
def test_answers_that_are_none_are_refused(pair, said):
    with pytest.raises(DataError, match=said):
        tables({"north": [("a", "b"), pair]}, (), task="generate")
    with pytest.raises(DataError, match="clients hold no examples"):
        tables({"north": []}, [pair], task="generate")


def test_a_word_is_a_text_whatever_it_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    train, test = tables({"": [(str(tmp_path / "a.png"), "x"), ("", "y")]}, ())
    assert train == Table((str(tmp_path / "a.png"), ""), ("x", "y"), ("", "")) and test is None


class Lighted(ToyEncoder):
    """The toy encoder with pictures for examples, seen as texts of how bright they are."""

    accepts = ToyEncoder.accepts | {"image"}

    def split(self, prompts, examples):
        return super().split(prompts, [f"example {int(x.pixels.mean())}" for x in examples])


def test_tune_takes_images(tmp_path):
    rng = np.random.default_rng(0)
    examples = [(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), "xy"[i % 2]) for i in range(24)]
    outcome = fedbbpt.tune(
        {"north": examples[:10], "south": examples[10:18]},
        "It was {label}.",
        tmp_path / "run",
        test=examples[18:],
        queries=300,
        box=Lighted(),
        prompt={"dim": 4},
        rounds={"max": 3},
    )
    assert outcome.result["test_examples"] == 6 and outcome.result["queries"]["train"] > 18
    assert set(outcome.predict([Picture(examples[0][0])])) <= {"x", "y"}
