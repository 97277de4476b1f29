import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedbbpt.data._skew import by_class, cut
from fedbbpt.data.partition import (
    KINDS,
    by_column,
    dirichlet,
    holdout,
    iid,
    pathological,
    shots,
    split,
)
from fedbbpt.errors import ConfigError, DataError
from fedbbpt.random import stream
from fedbbpt.types import digest

LABELS = np.repeat(np.arange(4), 40)
ROWS = np.arange(LABELS.size)
SITES = tuple("north east south".split()[i % 3] for i in ROWS)

law = settings(deadline=None, max_examples=60)  # no deadline: the machine may be busy
seeds = st.integers(0, 2**32)
label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=80)


def divide(kind, *, labels=LABELS, rows=ROWS, sites=SITES, **options):
    chosen = {"clients": 8, "alpha": 1.0, "labels_per_client": 2, "seed": 0} | options
    return split(kind, labels=labels, rows=rows, sites=sites, **chosen)


def same(one, other):
    return list(one) == list(other) and all(np.array_equal(one[k], other[k]) for k in one)


def is_partition(parts, rows):
    """Every row exactly once, each client sorted and not empty."""
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.sort(rows))
    for part in parts.values():
        assert part.dtype == np.int64
        assert part.size
        assert (np.diff(part) > 0).all()


def refused(error, *parts):
    return pytest.raises(error, match=".*".join(re.escape(part) for part in parts))


# --- laws of every kind --------------------------------------------------------------------------


@law
@given(data=st.data(), labels=label_lists, kind=st.sampled_from(KINDS), seed=seeds)
def test_every_row_is_with_exactly_one_client_and_none_is_empty(data, labels, kind, seed):
    labels = np.array(labels)
    chosen = data.draw(st.lists(st.sampled_from(range(labels.size)), min_size=1, unique=True))
    rows = np.array(chosen)
    clients = data.draw(st.integers(1, rows.size))
    each = data.draw(st.integers(1, np.unique(labels[rows]).size))
    alpha = data.draw(st.sampled_from([1e-300, 0.1, 1.0, 1e308, float("inf")]))
    sites = data.draw(st.tuples(*[st.sampled_from("abc")] * labels.size))
    try:
        parts = divide(
            kind, labels=labels, rows=rows, sites=sites, seed=seed,
            clients=clients, alpha=alpha, labels_per_client=each,
        )  # fmt: skip
    except (ConfigError, DataError):  # it may refuse, but not divide badly
        return
    is_partition(parts, rows)
    assert len(parts) == (len(set(sites)) if kind == "column" else clients)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_parts_whatever_the_order_of_rows(kind):
    assert same(divide(kind), divide(kind, rows=ROWS[::-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_only_columns_ignore_the_seed(kind):
    assert same(divide(kind), divide(kind, seed=1)) == (kind == "column")


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "pathological"])
@pytest.mark.parametrize(
    ("clients", "first", "last"),
    [(2, "client-00", "client-01"), (101, "client-000", "client-100")],
)
def test_client_names_are_padded_and_in_order(kind, clients, first, last):
    each = 2 if clients == 2 else 1  # 160 rows are too few for 202 shards
    names = list(divide(kind, clients=clients, alpha=float("inf"), labels_per_client=each))
    assert (names[0], names[-1]) == (first, last)
    assert names == sorted(names) and len(names) == clients


def test_an_unknown_kind():
    with refused(ConfigError, "'dirichlett'", "did you mean 'dirichlet'?", "known: column"):
        divide("dirichlett")


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "pathological"])
def test_too_few_and_too_many_clients(kind):
    with refused(ConfigError, "clients is 0", "1 or more"):
        divide(kind, clients=0)
    with refused(DataError, "3 training examples", "8 clients", "fewer clients", "more shots"):
        divide(kind, rows=ROWS[:3])


# --- each kind -----------------------------------------------------------------------------------


def test_columns_are_sites_in_alphabetical_order():
    parts = by_column(ROWS, SITES)
    assert list(parts) == ["east", "north", "south"]
    for name, rows in parts.items():
        assert {SITES[row] for row in rows} == {name}


def test_columns_need_sites():
    with refused(DataError, "no site column", "iid, dirichlet, pathological"):
        by_column(ROWS, None)


def test_a_site_that_the_selection_leaves_empty():
    with refused(DataError, "site 'south'", "none of the 2 selected", "raise shots"):
        by_column(ROWS[:2], SITES)


@law
@given(st.integers(1, 50), st.data(), seeds)
def test_iid_sizes_differ_by_at_most_one(count, data, seed):
    parts = iid(np.arange(count), data.draw(st.integers(1, count)), seed)
    sizes = [part.size for part in parts.values()]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_alpha_is_more_skewed_than_a_large_one():
    def skew(alpha):
        parts = [p for seed in range(5) for p in dirichlet(LABELS, ROWS, 8, alpha, seed).values()]
        return np.mean([np.bincount(LABELS[part]).max() / part.size for part in parts])

    assert skew(0.1) > skew(1.0) + 0.1 > skew(100.0) + 0.2


@law
@given(label_lists, st.data(), seeds)
def test_infinite_alpha_shares_out_evenly(labels, data, seed):
    labels = np.array(labels)
    clients = data.draw(st.integers(1, labels.size))
    parts = dirichlet(labels, np.arange(labels.size), clients, float("inf"), seed)
    counts = np.array([np.bincount(labels[part], minlength=5) for part in parts.values()])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_dirichlet_gives_the_mean_proportions_of_its_law():
    # E[p] = 1/n and, for a symmetric Dirichlet, Var[p] = (n - 1) / (n^2 (n alpha + 1)).
    labels, n, alpha = np.zeros(2000, dtype=np.int64), 4, 2.0
    parts = [dirichlet(labels, np.arange(2000), n, alpha, seed) for seed in range(400)]
    shares = np.array([[part.size / 2000 for part in p.values()] for p in parts])
    variance = (n - 1) / (n**2 * (n * alpha + 1))
    assert np.allclose(shares.mean(axis=0), 1 / n, atol=4 * np.sqrt(variance / 400))
    assert np.allclose(shares.var(), variance, rtol=0.15)


alphas = st.sampled_from([1e-300, 0.03, 0.1, 0.3, 1.0, 10.0, 1e308, float("inf")])


@law
@given(labels=label_lists, data=st.data(), alpha=alphas, seed=seeds)
def test_a_dirichlet_works_for_every_alpha(labels, data, alpha, seed):
    labels = np.array(labels)
    rows = np.array(data.draw(st.permutations(range(labels.size))))
    clients = data.draw(st.integers(1, rows.size))
    parts = dirichlet(labels, rows, clients, alpha, seed)
    is_partition(parts, rows)
    assert len(parts) == clients
    assert same(parts, dirichlet(labels, np.sort(rows), clients, alpha, seed))


@law
@given(alpha=st.sampled_from([0.03, 0.1, 1.0]), clients=st.integers(2, 20), seed=seeds)
def test_only_clients_left_empty_are_given_two_examples(alpha, clients, seed):
    rng = stream(seed, "partition")
    pieces = [cut(own, clients, alpha, rng) for own in by_class(LABELS, ROWS, rng)]
    drawn = [np.concatenate(own) for own in zip(*pieces, strict=True)]
    parts = list(dirichlet(LABELS, ROWS, clients, alpha, seed).values())
    for before, after in zip(drawn, parts, strict=True):
        if before.size:
            assert set(after) <= set(before)
        else:
            assert after.size == 2


def test_one_class_each_stays_one_class_each_under_extreme_skew():
    parts = dirichlet(LABELS, ROWS, 12, 1e-300, 0).values()
    # Four clients hold a class each; the eight that were empty get two examples from these.
    assert sorted(part.size for part in parts) == [2] * 8 + [36] * 4
    assert sum(np.unique(LABELS[part]).size == 1 for part in parts if part.size == 36) == 4


def test_a_client_left_empty_gets_one_example_where_there_are_too_few():
    labels = np.zeros(5, np.int64)
    assert {p.size for p in dirichlet(labels, np.arange(5), 5, 1e-300, 0).values()} == {1}


def test_a_draw_that_leaves_nobody_empty_is_kept():
    """Golden: these rows are what the published tables were made with."""
    parts = dirichlet(LABELS, ROWS, 8, 1.0, 0)
    assert [part.size for part in parts.values()] == [9, 15, 21, 26, 37, 27, 11, 14]
    drawn = digest(np.concatenate(list(parts.values())).astype("<i8").tobytes())
    assert drawn.hex() == "ce66f83f8de579da0ad96d34683bb28e"


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_out_of_range(alpha):
    with refused(ConfigError, f"alpha is {alpha}", "above 0"):
        divide("dirichlet", alpha=alpha)


@law
@given(labels=label_lists, data=st.data(), seed=seeds)
def test_pathological_clients_hold_exactly_so_many_classes(labels, data, seed):
    labels = np.array(labels)
    present, sizes = np.unique(labels, return_counts=True)
    each = data.draw(st.integers(1, present.size))
    fits = [n for n in range(1, 11) if present.size <= n * each <= np.minimum(sizes, n).sum()]
    assume(fits)
    clients = data.draw(st.sampled_from(fits))
    parts = pathological(labels, np.arange(labels.size), clients, each, seed)
    is_partition(parts, np.arange(labels.size))
    assert {np.unique(labels[part]).size for part in parts.values()} == {each}


def test_pathological_sizes_are_as_even_as_the_classes_allow():
    labels = np.repeat([0, 1, 2], [120, 40, 40])
    parts = pathological(labels, np.arange(200), 10, 1, 0)
    assert {part.size for part in parts.values()} == {20}


def test_pathological_mixes_the_classes_of_clients():
    parts = pathological(LABELS, ROWS, 8, 2, 0)
    assert len({tuple(np.unique(LABELS[part])) for part in parts.values()}) > 2


@pytest.mark.parametrize("each", [0, 5])
def test_labels_per_client_out_of_range(each):
    with refused(ConfigError, f"labels_per_client is {each}", "between 1 and", "4"):
        divide("pathological", labels_per_client=each)


def test_pathological_with_room_for_too_few_classes():
    with refused(ConfigError, "3 clients with 1 classes", "all 4", "labels_per_client"):
        divide("pathological", clients=3, labels_per_client=1)


def test_pathological_with_too_few_examples():
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    with refused(DataError, "4 clients with 2", "need 8 shares", "give 5", "more shots"):
        pathological(labels, np.arange(8), 4, 2, 0)


# --- shots ---------------------------------------------------------------------------------------


@law
@given(st.integers(1, 20), seeds)
def test_shots_are_exact_for_every_class(per_class, seed):
    labels = np.random.default_rng(0).permutation(LABELS)
    rows = shots(labels, per_class, seed)
    assert (np.diff(rows) > 0).all() and rows.dtype == np.int64
    assert np.bincount(labels[rows]).tolist() == [per_class] * 4


def test_shots_follow_the_seed_and_grow_from_smaller_samples():
    assert set(shots(LABELS, 8, 3)) == set(shots(LABELS, 8, 3)) != set(shots(LABELS, 8, 4))
    assert set(shots(LABELS, 8, 3)) < set(shots(LABELS, 16, 3))


def test_shots_beyond_a_class():
    labels = np.array([0, 0, 0, 1, 1])
    with refused(DataError, "class 1 has 2", "asks for 3", "lower shots"):
        shots(labels, 3, 0)
    with refused(DataError, "class 'yes' has 2", "asks for 3"):
        shots(labels, 3, 0, names=["no", "yes"])
    with refused(DataError, "class 'maybe' has 0", "asks for 1"):
        shots(labels, 1, 0, names=["no", "yes", "maybe"])


def test_shots_out_of_range():
    with refused(ConfigError, "shots is 0", "1 or more"):
        shots(LABELS, 0, 0)


# --- holdout -------------------------------------------------------------------------------------

shares = st.floats(0, 1, exclude_max=True)


@law
@given(labels=label_lists, data=st.data(), share=shares, seed=seeds)
def test_holdout_keeps_every_example_once(labels, data, share, seed):
    labels = np.array(labels)
    rows = np.array(data.draw(st.lists(st.sampled_from(range(labels.size)), unique=True)))
    kept, held = holdout(rows.astype(np.int64), labels, share, seed, "a")
    assert kept.dtype == held.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.sort(rows))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    if rows.size >= 2 and share > 0:
        assert held.size and kept.size
        assert abs(held.size - share * rows.size) <= 1
    else:
        assert not held.size
    if held.size:
        fair = np.bincount(labels[rows], minlength=5) * held.size / rows.size
        assert (np.abs(np.bincount(labels[held], minlength=5) - fair) < 1).all()


def test_holdout_follows_seed_and_client():
    def held(*address):
        return holdout(ROWS, LABELS, 0.25, *address)[1].tolist()

    assert held(0, "a") == held(0, "a")
    assert held(0, "a") != held(1, "a")
    assert held(0, "a") != held(0, "b")


def test_holdout_does_not_depend_on_the_order_of_rows():
    one, other = (holdout(rows, LABELS, 0.25, 0, "a") for rows in (ROWS, ROWS[::-1]))
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def test_every_example_is_held_back_about_as_often():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    held = [holdout(np.arange(8), labels, 0.25, seed, "a")[1] for seed in range(800)]
    counts = np.bincount(np.concatenate(held), minlength=8)
    assert (np.abs(counts - 200) < 5 * np.sqrt(800 * 0.25 * 0.75)).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_holdout_share_out_of_range(share):
    with refused(ConfigError, f"holdout is {share}", "below 1"):
        holdout(ROWS, LABELS, share, 0, "a")
