"""A secure sum from the first message to the last, as an engine would carry it; and what may go
wrong on the way.
"""

import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from scipy import stats

from fedbbpt.aggregators.adam import Adam
from fedbbpt.errors import ConfigError, MissingExtra, Refused
from fedbbpt.maths.secret import SecretStream
from fedbbpt.maths.shamir import split
from fedbbpt.shielding import Seat, in_order, protect
from fedbbpt.shields._fixed_point import from_words, limit, to_words
from fedbbpt.shields._masking import between, cover, own
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.mask import Mask
from fedbbpt.shields.noise import Noise
from fedbbpt.shields.quantise import Quantise
from fedbbpt.types import Update

pytest.importorskip("cryptography")

NO_DRAWS = SecretStream(b"")
MASK = Mask()


class Played(NamedTuple):
    """All that the server has seen, and what it makes of it, if it was asked to."""

    adverts: dict
    shares: dict
    words: dict
    answers: dict
    agreed: dict
    layout: dict

    def mean(self, mask=MASK, round=0):
        """The server's result."""
        return mask.mean(round, *self[:4], self.layout)


def names(count):
    return [f"site{k}" for k in range(count)]


def seat(name, round=0, run=0):
    """The run tells secrets apart, of which every site has its own for each."""
    return Seat(name, round, f"{name}/{run}".encode().ljust(32, b".")[:32])


def inputs(count, seed=0, scale=1.0):
    """Arrays and weight by site."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            {"mean": scale * rng.standard_normal((2, 3)), "sigma": np.array(rng.uniform())},
            float(rng.integers(1, 50)),
        )
        for name in names(count)
    }


def play(given, mask=MASK, lost=((), (), ()), round=0, run=0):
    """The four phases among the sites of ``given``; ``lost``: who is gone before the shares, before
    the words, before the answers.
    """
    seats = {name: seat(name, round, run) for name in given}
    adverts = {name: mask.advertise(seats[name]) for name in given}
    there = [name for name in given if name not in lost[0]]
    shares = {name: mask.share(seats[name], adverts) for name in there}
    there = [name for name in there if name not in lost[1]]
    agreed = {name: mask.agree(seats[name], adverts, shares) for name in there}
    words = {name: agreed[name].apply(*given[name], NO_DRAWS) for name in there}
    there = [name for name in there if name not in lost[2]]
    answers = {name: agreed[name].answer(words) for name in there}
    layout = {name: array.shape for name, array in next(iter(given.values()))[0].items()}
    return Played(adverts, shares, words, answers, agreed, layout)


class State(NamedTuple):
    mean: np.ndarray


def plain(given, bits=32):
    """What a sum in the clear gives: exact integers of the step, then the mean."""
    unit = 2.0**bits
    weight = sum(w for _, w in given.values())
    fields = next(iter(given.values()))[0]
    whole = {
        f: [np.rint(w * a[f] * unit).astype(np.int64) for a, w in given.values()] for f in fields
    }
    sums = {f: sum(whole[f]) / unit for f in fields}
    return {f: sums[f] / weight for f in fields}, weight


def agree(found, wanted):
    """To the bit: whole numbers have no rounding."""
    assert found[1] == wanted[1] and found[0].keys() == wanted[0].keys()
    for name in wanted[0]:
        assert np.array_equal(found[0][name], wanted[0][name]), name


# --- the sum -------------------------------------------------------------------------------------


@over(st.integers(3, 8), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e4]))
def test_the_sum_is_exact_to_the_step(count, seed, scale):
    given = inputs(count, seed, scale)
    found, weight = play(given).mean()
    agree((found, weight), plain(given))
    for name in found:
        true = sum(w * a[name] for a, w in given.values()) / weight
        step = 2.0**-33 * count / weight
        assert np.abs(found[name] - true).max() <= step * 1.01 + 1e-15 * scale * count


LOST = [
    (4, ("site1",), (), ()),
    (4, (), ("site1",), ()),
    (4, (), (), ("site1",)),
    (8, (), ("site0", "site7"), ()),
    (8, (), (), ("site2", "site3")),
    (8, ("site0",), ("site4",), ()),
    (8, (), ("site4",), ("site5",)),
]


@pytest.mark.parametrize("count, first, second, third", LOST)
def test_sites_may_be_lost_at_any_time(count, first, second, third):
    """Who sent words counts even if it is lost afterwards; nobody else does."""
    given = inputs(count)
    played = play(given, lost=(first, second, third))
    kept = {name: given[name] for name in given if name not in (*first, *second)}
    agree(played.mean(), plain(kept))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_too_few_sites_are_refused(at):
    """4 of 6 must stay."""
    gone = ("site0", "site1", "site2")
    if at < 2:
        did = ("shared keys", "are in the sum")[at]
        with pytest.raises(Refused, match=f"3 sites {did}; a secure sum needs 4"):
            play(inputs(6), lost=tuple(gone if k == at else () for k in range(3)))
    else:
        with pytest.raises(Refused, match="3 sites answered; a secure sum needs 4"):
            play(inputs(6), lost=((), (), gone)).mean()


def test_one_site_is_no_sum():
    with pytest.raises(Refused, match="1 sites advertised keys; a secure sum needs 2"):
        play(inputs(1))


def test_two_thirds_must_stay():
    """Above half in every case, so that no two groups of sites can each give enough shares."""
    assert [Mask().needed(n) for n in (2, 3, 4, 5, 6, 8, 10, 100)] == [2, 2, 3, 4, 4, 6, 7, 67]
    assert all(2 * Mask().needed(n) > n for n in range(2, 500))


def test_a_threshold_may_be_given():
    agree(play(inputs(5), Mask(5)).mean(Mask(5)), plain(inputs(5)))
    with pytest.raises(Refused, match="4 sites shared keys; a secure sum needs 5"):
        play(inputs(5), Mask(5), lost=(("site0",), (), ()))
    with pytest.raises(Refused, match="threshold is 3 of 6 sites; it must be above half"):
        play(inputs(6), Mask(3))


def test_a_site_without_weight_adds_nothing():
    given = inputs(4)
    none = {name: np.zeros_like(array) for name, array in given["site2"][0].items()}
    without = {name: given[name] for name in given if name != "site2"}
    agree(play({**given, "site2": (none, 0.0)}).mean(), plain(without))
    means, weight = play(dict.fromkeys(names(3), (none, 0.0))).mean()
    assert weight == 0 and not means["mean"].any()


def test_a_merge_reads_the_mean_as_one_update():
    given = {name: ({"mean": a["mean"]}, w) for name, (a, w) in inputs(5).items()}
    adam, state = Adam(), State(np.zeros((2, 3)))
    each = [Update(name, 0, w, arrays) for name, (arrays, w) in given.items()]
    means, weight = play(given).mean()
    one, _ = adam.merge(state, [Update("sum", 0, weight, means)], adam.init(state))
    all, _ = adam.merge(state, each, adam.init(state))
    assert one.mean == pytest.approx(all.mean, abs=1e-6)


def test_behind_all_other_shields_the_sum_is_that_of_what_they_leave():
    front = in_order([Clip(1.0), Noise(0.1), Quantise(12)])
    raw = {name: (arrays, 2.0) for name, (arrays, _) in inputs(4).items()}
    given = {
        name: (protect(front, arrays, w, seat(name).secret, 0), w)
        for name, (arrays, w) in raw.items()
    }
    means, weight = play(given).mean()
    assert weight == 8 and sorted(means) == ["mean.quantised", "sigma.quantised"]
    opened = front[2].open(means)
    wanted = sum(front[2].open(arrays)["mean"] for arrays, _ in given.values()) / 4
    assert opened["mean"] == pytest.approx(wanted, abs=1e-8)


# --- what the server sees ------------------------------------------------------------------------


def uniform(octets):
    """p-value of all 256 values being as frequent."""
    return stats.chisquare(np.bincount(octets.ravel(), minlength=256)).pvalue


def test_what_one_site_sends_is_uniform():
    """Over 300 runs with the same words: every byte of every word, and each word over the runs."""
    given = {name: ({"mean": np.array([1.0, -2.0, 0.0])}, 3.0) for name in names(3)}
    sent = [play(given, run=run).words["site1"]["words"] for run in range(300)]
    octets = np.array(sent).view(np.uint8).reshape(300, 4, 8)
    assert uniform(octets) > 1e-3
    for byte in range(8):
        assert uniform(octets[:, :, byte]) > 1e-4, byte
    for word in range(4):
        assert uniform(octets[:, word]) > 1e-4, word
    # The words are the same, so without masks they would all be equal.
    assert len({row.tobytes() for row in np.array(sent)}) == 300


def test_the_masks_of_a_pair_alone_hide_the_words_and_so_does_the_own():
    """Without either of the two, what is left is still no plain word."""
    played = play(inputs(3))
    known = played.agreed["site0"].agreed
    bare = to_words(*inputs(3)["site0"], 32, 3)
    sent = played.words["site0"]["words"]
    only = known._replace(senders=("site0",))
    mine = own(known.seed, known.roster, bare.size)
    assert np.array_equal(cover(only, bare), bare + mine)
    assert not (sent - mine == bare).any() and not (sent == cover(only, bare)).any()


def test_inputs_of_the_same_sum_look_the_same():
    """Two sets of inputs whose sum is the same: transcripts of one form, results of one value, and
    whatever differs between the words is uniform.
    """
    one = {name: ({"x": np.arange(500.0) + k}, 2.0) for k, name in enumerate(names(4))}
    two = {name: ({"x": np.arange(500.0) + 3 - k}, 2.0) for k, name in enumerate(names(4))}
    seen = [play(given, run=run) for run, given in enumerate((one, two))]
    agree(seen[0].mean(), seen[1].mean())
    for phases in zip(*(played[:4] for played in seen), strict=True):
        forms = [
            {(n, f, a.shape, a.dtype) for n, m in phase.items() for f, a in m.items()}
            for phase in phases
        ]
        assert forms[0] == forms[1] and len(forms[0]) >= 4
    for name in one:
        gap = seen[0].words[name]["words"] - seen[1].words[name]["words"]
        assert uniform(gap.view(np.uint8)) > 1e-4


def test_a_task_that_runs_again_sends_the_same_again():
    one, again = play(inputs(4)), play(inputs(4))
    for phase, same in zip(one[:4], again[:4], strict=True):
        for name in phase:
            for field in phase[name]:
                assert np.array_equal(phase[name][field], same[name][field])


def test_every_round_and_every_company_has_masks_of_its_own():
    """So what is told of one sum says nothing about another."""
    sent = [
        play(inputs(4)).words["site0"]["words"],
        play(inputs(4), round=1).words["site0"]["words"],
        play(inputs(5)).words["site0"]["words"],
        play(inputs(4), lost=(("site3",), (), ())).words["site0"]["words"],
        play(inputs(4), run=1).words["site0"]["words"],
    ]
    for k, one in enumerate(sent):
        for other in sent[k + 1 :]:
            assert not (one == other).any()


def test_words_for_fewer_sites_do_not_show_the_mask_of_the_one_left_out():
    """A server that asks twice, with and without a site's shares, learns no mask from it."""
    whole, part = (
        play(inputs(4), lost=(lost, (), ())).agreed["site0"].agreed for lost in ((), ("site3",))
    )
    assert whole.seed == part.seed and whole.mask_key == part.mask_key
    masks = [
        (own(at.seed, at.roster, 50), between(at.mask_key, "site0", "site1", at.roster, 50))
        for at in (whole, part)
    ]
    for one, other in zip(*masks, strict=True):
        assert not (one == other).any()


def test_the_messages_are_small():
    """What a site sends besides its words: 64 bytes, then 148 a site and 32, then 66 a site."""
    played = play(inputs(5))
    sizes = [
        sum(array.nbytes for array in phase["site0"].values())
        for phase in (played.adverts, played.shares, played.words, played.answers)
    ]
    assert sizes == [64, 5 * 148 + 32, 8 * (1 + 7), 5 * 66]
    assert [row.any() for row in played.shares["site0"]["sealed"]] == [False] + 4 * [True]


# --- what is refused -----------------------------------------------------------------------------


def test_both_shares_of_a_site_are_never_told():
    played = play(inputs(5))
    agreed, everyone = played.agreed["site0"], set(played.words)
    assert agreed.answer(everyone, everyone)["shares"].shape == (5, 66)
    with pytest.raises(Refused, match=r"has answered for a sum over site0.*does not answer"):
        agreed.answer(everyone - {"site4"}, everyone)
    with pytest.raises(Refused, match="words of site0 are not in the sum"):
        agreed.answer(everyone - {"site0"})
    with pytest.raises(Refused, match="3 sites are in the sum; a secure sum needs 4"):
        agreed.answer({"site0", "site1", "site2"})
    with pytest.raises(Refused, match="a site comes twice"):
        agreed.answer(["site0", "site1", "site2", "site3", "site3"])
    with pytest.raises(Refused, match="nobody are in the sum, but did not"):
        agreed.answer({*everyone, "nobody"})


@pytest.mark.parametrize("lost", [(), ("site1",)])
def test_a_wrong_share_is_found_out(lost):
    """With the seed of a site that is there, with the key of one that is not."""
    played = play(inputs(5), lost=((), lost, ()))
    changed = {f: a.copy() for f, a in played.answers["site0"].items()}
    changed["shares"][1, -1] ^= 1
    what = "key" if lost else "seed"
    with pytest.raises(Refused, match=f"shares of the {what} of site1 do not fit together"):
        played._replace(answers={**played.answers, "site0": changed}).mean()
    changed["shares"][1] = 255
    with pytest.raises(Refused, match="site0 sent a share that is none"):
        played._replace(answers={**played.answers, "site0": changed}).mean()


@pytest.mark.parametrize("lost, what", [((), "seed"), (("site1",), "key")])
def test_sites_that_agree_on_another_secret_are_found_out(lost, what):
    """Shares that fit together, of a secret of the right size."""
    played = play(inputs(5), lost=((), lost, ()))
    forged = split(2**250 + 7, 4, 5, np.random.default_rng(0).bytes)
    for name, answer in played.answers.items():
        lines = answer["shares"].copy()
        lines[1] = np.frombuffer(forged[int(name[4:])].to_bytes(66, "big"), np.uint8)
        played.answers[name] = {"shares": lines}
    with pytest.raises(Refused, match=f"shares of the {what} of site1 do not fit together"):
        played.mean()


def test_another_sites_share_is_found_out():
    played = play(inputs(4))
    answers = {**played.answers, "site0": played.answers["site1"]}
    with pytest.raises(Refused, match="do not fit together"):
        played._replace(answers=answers).mean()


def test_a_share_changed_on_its_way_is_found_out():
    given, mask = inputs(4), MASK
    played = play(given)
    changed = {f: a.copy() for f, a in played.shares["site2"].items()}
    changed["sealed"][0, 3] ^= 1
    with pytest.raises(Refused, match="share of site2 for site0 was changed"):
        mask.agree(seat("site0"), played.adverts, {**played.shares, "site2": changed})
    # Of another round: sealed for other keys.
    late = play(given, round=1).shares["site2"]
    with pytest.raises(Refused, match="share of site2 for site0 was changed"):
        mask.agree(seat("site0"), played.adverts, {**played.shares, "site2": late})


def test_keys_that_are_not_ones_own_are_found_out():
    adverts = dict(play(inputs(4)).adverts)
    with pytest.raises(Refused, match="public key comes twice"):
        MASK.share(seat("site0"), {**adverts, "site1": adverts["site2"]})
    with pytest.raises(Refused, match="keys of site0 came back changed"):
        MASK.share(seat("site0"), {**adverts, "site0": MASK.advertise(seat("other"))})
    with pytest.raises(Refused, match="keys of nobody came back changed"):
        MASK.share(seat("nobody"), adverts)
    weak = {**adverts["site1"], "share_key": np.zeros(32, np.uint8)}
    with pytest.raises(Refused, match="public key of low order"):
        MASK.share(seat("site0"), {**adverts, "site1": weak})


@pytest.mark.parametrize(
    "message, said",
    [
        ({}, "site1 sent a message without share_key"),
        ({"share_key": np.zeros(31, np.uint8)}, r"uint8 of shape \(31,\); it must be uint8"),
        ({"share_key": np.zeros(32)}, r"float64 of shape \(32,\); it must be uint8"),
    ],
)
def test_a_message_of_another_form_is_refused(message, said):
    adverts = {**play(inputs(4)).adverts, "site1": message}
    with pytest.raises(Refused, match=said):
        MASK.share(seat("site0"), adverts)


def test_words_of_another_form_are_refused():
    played = play(inputs(4))
    for words, said in (
        ({"words": np.zeros(3, np.uint64)}, r"words of site1 is uint64 of shape \(3,\)"),
        ({"words": np.zeros(8)}, "words of site1 is float64"),
        ({}, "site1 sent a message without words"),
    ):
        with pytest.raises(Refused, match=said):
            played._replace(words={**played.words, "site1": words}).mean()
    with pytest.raises(Refused, match="has 8 numbers; the fields mean and the weight make 7"):
        played._replace(layout={"mean": (2, 3)}).mean()


def test_messages_of_strangers_and_second_ones_are_refused():
    known = names(2)
    assert MASK.gathered([("site1", {}), ("site0", {})], known) == {"site1": {}, "site0": {}}
    with pytest.raises(Refused, match="site7 sent a message, but takes no part"):
        MASK.gathered([("site7", {})], known)
    with pytest.raises(Refused, match="site0 sent two messages"):
        MASK.gathered([("site0", {}), ("site0", {})], known)
    played = play(inputs(4))
    with pytest.raises(Refused, match="site9 answered, but did not take the step before"):
        played._replace(answers={**played.answers, "site9": played.answers["site0"]}).mean()
    with pytest.raises(Refused, match="shares of site0 are not among those"):
        lost = {name: played.shares[name] for name in names(4)[1:]}
        MASK.agree(seat("site0"), played.adverts, lost)


def test_nothing_leaves_without_an_agreement():
    with pytest.raises(Refused, match="agreed on no masks for this round"):
        MASK.apply(*inputs(3)["site0"], NO_DRAWS)


# --- fixed point ---------------------------------------------------------------------------------


@over(st.integers(0, 52), st.integers(2, 1000), st.integers(0, 99))
def test_the_largest_values_fit_and_larger_ones_are_refused(bits, clients, seed):
    most = limit(bits, clients)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], 5)
    weight = min(1.0, most)
    words = to_words({"x": most / weight * signs}, weight, bits, clients)
    total = np.zeros_like(words)
    for _ in range(clients):
        total = total + words
    sums, _ = from_words(total, {"x": (5,)}, bits)
    assert sums["x"] == pytest.approx(clients * most * signs, rel=1e-9, abs=clients * 2.0**-bits)
    with pytest.raises(Refused, match="a masked sum takes at most"):
        to_words({"x": np.array([1.001 * most / weight])}, weight, bits, clients)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_words(value):
    with pytest.raises(Refused, match="x times the weight is not finite"):
        to_words({"x": np.array([value])}, 1.0, 32, 3)
    with pytest.raises(Refused, match="the weight is not finite"):
        to_words({"x": np.zeros(1)}, value, 32, 3)


@pytest.mark.parametrize(
    "options", [{"threshold": 1}, {"threshold": -2}, {"bits": -1}, {"bits": 53}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=f"mask.{next(iter(options))} is"):
        Mask(**options)


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingExtra, match=r"cryptography is not installed.*fedbbpt\[privacy\]"):
        MASK.advertise(seat("site0"))
