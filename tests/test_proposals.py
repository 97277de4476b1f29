"""The pool of a run: who is asked for what, in which order it grows, and what is kept of it."""

from itertools import count

import numpy as np
import pytest

from fedbbpt.boxes.function import Function
from fedbbpt.build import build
from fedbbpt.config import resolve
from fedbbpt.errors import RunDirError
from fedbbpt.ledger import Ledger
from fedbbpt.proposals import APART, Proposals
from fedbbpt.proposing import WHY, packed, unpacked
from fedbbpt.sharing import share_out, tables
from fedbbpt.testing.toys import ToyVocabulary
from fedbbpt.types import Update

YOURS = "Write the word for more than one."
SITES = {"ash": 4, "birch": 4, "cedar": 4}


def federation(tmp_path, sites=SITES, **options):
    tree = {
        "task": "generate",
        "data": {"train": ""},
        "prompt": {"instruction": YOURS, "encoder": "ngrams", **options},
        "method": {"name": "fedinstruct"},
        "rounds": {"holdout": 0.0},
    }
    config = resolve(tree, tmp_path)
    held = {name: [(f"{name} {i}", "yes") for i in range(n)] for name, n in sites.items()}
    box = Function(lambda p, x: None, gives=["text"], vocabulary=ToyVocabulary())
    return build(config, share_out(config, *tables(held, (), task="generate")), Ledger(), box)


class Clients:
    """Stand-ins: ``says[client]`` is a list of texts, with the rows that they came of."""

    def __init__(self, **says):
        self.says, self.heard, self.events = says, [], []

    def ask(self, phase, arrays, clients):
        self.heard.append((phase, arrays, list(clients)))
        return [self._update(name) for name in clients]

    def _update(self, name):
        texts, rows, refused = self.says.get(name, ((), (), (0, 0, 0, 0)))
        arrays = {"texts": packed(texts), "rows": np.array(rows, np.int64)}
        return Update(name, 0, 1.0, arrays | {"refused": np.array(refused, np.int64)})

    def tell(self, event, **facts):
        self.events.append((event, facts))


def says(*texts, rows=None, refused=(0, 0, 0, 0)):
    return texts, rows or [0] * len(texts), refused


def grown(federation, folder, **said):
    """(pool, clients) after a first growth."""
    pool, clients = Proposals(federation, folder, 0), Clients(**said)
    pool.grow(clients.ask, clients.tell, state_of(pool), 0)
    return pool, clients


def state_of(pool, losses=()):
    """A search over the pool to which so many rows were told, by one client."""
    parts = pool.parts()
    state = parts.optimizer.init(parts.prompt.space)
    rows = np.arange(len(losses), dtype=np.float64)[:, None]
    return state._replace(
        seen_points=rows,
        seen_losses=np.array(losses, np.float64),
        seen_weights=np.ones(len(losses)),
        seen_turns=np.zeros(len(losses), np.int64),
        seen_clients=np.ones(len(losses), np.uint64),
    )


# --- growing -------------------------------------------------------------------------------------


def test_all_clients_with_examples_are_asked_at_first(tmp_path):
    fed = federation(tmp_path, {"ash": 3, "birch": 1, "cedar": 2}, proposals=5)
    fed.split.train["birch"] = fed.split.train["birch"].take([])
    _, clients = grown(fed, tmp_path)
    ((phase, arrays, asked),) = clients.heard
    assert (phase, asked, arrays.keys()) == ("propose", ["ash", "cedar"], {"number"})
    assert arrays["number"] == 5


def test_clients_take_turns_and_what_is_there_is_not_taken_again(tmp_path):
    pool, _ = grown(
        federation(tmp_path),
        tmp_path,
        ash=says("Pluralise it.", "List the letters.", "Sum up.", "Go on."),
        birch=says("  pluralise IT!", "Translate it.", YOURS.upper()),
        cedar=says("Sort the words."),
    )
    assert list(zip(pool.texts, pool.authors, strict=True)) == [
        (YOURS, ""),
        ("Pluralise it.", "ash"),
        ("Sort the words.", "cedar"),
        ("List the letters.", "ash"),
        ("Translate it.", "birch"),
        ("Sum up.", "ash"),
        ("Go on.", "ash"),
    ]
    assert pool.points.shape == (7, 16) and not pool.points[0].any()
    assert len(np.unique(pool.points, axis=0)) == 7
    assert pool.parts().prompt.texts == tuple(pool.texts)


def test_texts_at_one_place_are_one_candidate(tmp_path):
    """To the encoder of letters the order of words is nothing."""
    said = says("Sort the words.", "The words sort.", "Words, the: sort!")
    assert grown(federation(tmp_path), tmp_path, ash=said)[0].texts == [YOURS, "Sort the words."]


def test_what_did_not_leave_is_told_by_number_alone(tmp_path):
    said = {"ash": says("Go on.", refused=(1, 0, 2, 3)), "birch": says()}
    _, clients = grown(federation(tmp_path), tmp_path, **said)
    assert clients.events == [
        ("proposed", {"client": "ash", "sent": 1, "refused": {"nothing": 1, "gap": 2, "leak": 3}}),
        ("proposed", {"client": "birch", "sent": 0, "refused": {}}),
        ("proposed", {"client": "cedar", "sent": 0, "refused": {}}),
    ]
    assert list(WHY) == ["nothing", "long", "gap", "leak"]


def test_a_second_growth_asks_one_client_for_more_like_the_best(tmp_path):
    first = says("Pluralise it.", "List the letters.", "Sum up.")
    pool, clients = grown(federation(tmp_path, proposals=3), tmp_path, ash=first)
    before = pool.points.copy()
    clients.says = dict.fromkeys(SITES, says("Pluralise the word.", "Sum up."))
    pool.grow(clients.ask, clients.tell, state_of(pool, [0.5, 0.9, 0.1, 1.0]), 7)
    phase, arrays, asked = clients.heard[1]
    assert phase == "propose" and len(asked) == 1 and arrays["number"] == 3
    assert unpacked(arrays["near"]) == ["List the letters.", YOURS]
    assert pool.texts == [YOURS, *first[0], "Pluralise the word."]
    # What was there stays where it was; the new one is nearer to its kin than others are.
    np.testing.assert_array_equal(pool.points[:4], before)
    gaps = np.linalg.norm(pool.points[:4] - pool.points[4], axis=1)
    assert gaps.argmin() == 1


def test_what_was_varied_is_not_varied_again(tmp_path):
    first = says("Pluralise it.", "List the letters.", "Sum up.")
    pool, clients = grown(federation(tmp_path, again=3), tmp_path, ash=first)
    for number in (1, 2, 3):
        pool.grow(clients.ask, clients.tell, state_of(pool, [0.5, 0.9, 0.1, 1.0]), number)
        pool = Proposals(federation(tmp_path, again=3), tmp_path, number + 1)
    near = [unpacked(arrays["near"]) for _, arrays, _ in clients.heard[1:]]
    assert near == [["List the letters.", YOURS], ["Pluralise it.", "Sum up."], []]


def test_later_texts_find_a_place_though_the_first_were_few(tmp_path):
    """They have no letters in common with what gave the pool its first direction."""
    pool, clients = grown(federation(tmp_path), tmp_path, ash=says("Pluralise it."))
    before, later = pool.points.copy(), ("Sum up.", "Go back.", "Say why.")
    clients.says = dict.fromkeys(SITES, says(*later))
    pool.grow(clients.ask, clients.tell, state_of(pool, [0.5, 0.1]), 7)
    assert pool.texts[2:] == list(later)
    np.testing.assert_array_equal(pool.points[:2], before)
    gaps = np.linalg.norm(pool.points[2:, None] - pool.points[2:], axis=2)
    np.testing.assert_allclose(gaps[~np.eye(3, dtype=bool)], np.sqrt(2), atol=0.3)


def test_whoever_varies_is_drawn_anew(tmp_path):
    pool, clients = grown(federation(tmp_path, again=30), tmp_path, ash=says("Sum up."))
    for number in range(1, 20):
        pool.grow(clients.ask, clients.tell, state_of(pool, [1.0, 0.5]), number)
    assert {asked[0] for _, _, asked in clients.heard[1:]} == set(SITES)


def test_when_it_is_time(tmp_path):
    fed = federation(tmp_path, again=2)
    pool, clients = Proposals(fed, tmp_path, 0), Clients()
    due = []
    for _ in range(4):
        shares = (0.0, 0.3, 0.34, 0.6, 0.67, 1.0)
        due.append([share for share in shares if pool.due(share, False, 3)])
        assert pool.due(0.0, True, 3) == (pool.made <= 2)
        # The first growth is paid for; a later one asks three questions.
        assert pool.due(1.0, True, 2) == (pool.made == 0)
        pool.grow(clients.ask, clients.tell, state_of(pool, [1.0]), 0)
    assert due == [[0.0, 0.3, 0.34, 0.6, 0.67, 1.0], [0.34, 0.6, 0.67, 1.0], [0.67, 1.0], []]


def test_nobody_with_a_proposal_is_said_and_may_change(tmp_path):
    pool, clients = grown(federation(tmp_path), tmp_path, ash=says(refused=(1, 0, 0, 2)))
    assert pool.texts == [YOURS] and pool.points.tolist() == [[0.0] * 16]
    again = Proposals(federation(tmp_path), tmp_path, 1)
    for each in (pool, again):
        (note,) = each.notes
        assert note == (
            "no instruction but yours was tried, for none came that can be used "
            "(telling of a private example: 2, replies without one: 1)"
        )
    clients.says = dict.fromkeys(SITES, says("Sum up."))
    pool.grow(clients.ask, clients.tell, state_of(pool, [1.0]), 1)
    assert pool.texts == [YOURS, "Sum up."] and pool.points[1].any() and pool.notes == ()


# --- on disk -------------------------------------------------------------------------------------


def test_what_is_kept_is_all_of_it(tmp_path):
    fed, more = federation(tmp_path), says("Sort them.", "Sprich: „naïve“.")
    pool, clients = grown(fed, tmp_path, ash=says("Sum up.", "Go on."), cedar=more)
    later = dict.fromkeys(SITES, says("Sort the words.", "Summarise."))
    clients.says = later
    for number, files in ((1, ["pool-1.safetensors"]), (2, ["pool-1", "pool-2"])):
        if number == 2:
            pool.grow(clients.ask, clients.tell, state_of(pool, [0.0]), 9)
        again = Proposals(federation(tmp_path), tmp_path, number)
        assert (again.texts, again.authors, again.made) == (pool.texts, pool.authors, number)
        assert again.points.tobytes() == pool.points.tobytes()
        assert len([*tmp_path.glob("*")]) == len(files)
    again = Proposals(federation(tmp_path), tmp_path, 1)  # cut off behind the first growth
    again.grow(clients.ask, clients.tell, state_of(again, [0.0]), 9)
    assert again.texts == pool.texts and again.points.tobytes() == pool.points.tobytes()


@pytest.mark.parametrize("loss", ["gone", "cut", "empty"])
def test_a_pool_that_is_lost_is_named(tmp_path, loss):
    grown(federation(tmp_path), tmp_path, ash=says("Sum up."))
    file = tmp_path / "pool-1.safetensors"
    if loss == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 100 if loss == "cut" else 0])
    with pytest.raises(RunDirError) as caught:
        Proposals(federation(tmp_path), tmp_path, 1)
    assert str(caught.value).startswith(f"{file} is lost or damaged, so the run cannot be resumed")


# --- what is known of it -------------------------------------------------------------------------


def test_the_table_has_the_best_first_and_the_untried_last(tmp_path):
    texts = ("Pluralise it.", "List the letters.", "Sum up.")
    pool, _ = grown(federation(tmp_path), tmp_path, ash=says(*texts))
    table = pool.table(state_of(pool, [0.9, 0.1, 0.5]), pool.points[1])
    assert [one["instruction"] for one in table] == [texts[0], texts[1], YOURS, texts[2]]
    assert [one["author"] for one in table] == ["ash", "ash", "", "ash"]
    assert [one["answers"] for one in table] == [1, 1, 1, 0]
    assert [one["chosen"] for one in table] == [True, False, False, False]
    assert table[0]["loss"] < table[1]["loss"] < table[2]["loss"]
    assert (table[3]["loss"], table[3]["error"]) == (None, None)
    untried = pool.table(state_of(pool), pool.points[0])
    assert [one["instruction"] for one in untried] == [YOURS, *texts] and untried[0]["chosen"]


# --- behind soft prompts -------------------------------------------------------------------------


def test_soft_prompts_are_shared_out_and_their_texts_stand_where_they_do(tmp_path):
    fed, number = federation(tmp_path, writer="soft", proposals=2, latent=3), count()
    pool, clients = Proposals(fed, tmp_path, 0), Clients()

    def answer(name):
        # The first of its two soft prompts wrote something that leaks.
        return Update(name, 0, 1.0, {"texts": packed([f"Go {name}."]), "rows": np.array([1])})

    clients._update = answer
    pool.grow(clients.ask, clients.tell, state_of(pool), 0)
    asked = [(names, arrays["latents"]) for _, arrays, names in clients.heard]
    assert [names for names, _ in asked] == [[name] for name in SITES]
    latents = np.concatenate([own for _, own in asked])
    assert latents.shape == (6, 3) and (abs(latents) <= 1).all()
    assert len(np.unique(latents, axis=0)) == 6
    assert pool.texts == [YOURS, "Go ash.", "Go birch.", "Go cedar."]
    np.testing.assert_array_equal(pool.points[1:], [own[1] + APART for _, own in asked])
    assert not pool.points[0].any()

    state = state_of(pool, [0.9, 0.0, 0.8, 1.0])
    clients._update = lambda name: Update(
        name, 0, 1.0, {"texts": packed([f"Go on {next(number)}."]), "rows": np.array([0])}
    )
    pool.grow(clients.ask, clients.tell, state, 5)
    later = np.concatenate([arrays["latents"] for _, arrays, _ in clients.heard[3:]])
    assert later.shape == (6, 3) and (abs(later) <= 1).all()
    assert not {row.tobytes() for row in later} & {row.tobytes() for row in latents}
    assert len(pool.texts) == 7
