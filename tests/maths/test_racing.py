"""Racing: the bound beside exact probabilities, the promise over whole runs, and what it costs."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.maths.racing import by_bets, by_count, by_turn, doubt, outclassed


def drops(losses, delta=0.05, examples=1, shares=None, rivals=None):
    """(u,) after how many turns each candidate is out, with a look after each; 0 for never."""
    clients, turns = losses.shape[1:]
    shares = np.full(clients, 1 / clients) if shares is None else shares
    first = np.zeros(len(losses), int)
    for turn in range(1, turns + 1):
        out = outclassed(losses[:, :, :turn], shares, delta, examples, rivals)
        first[out & (first == 0)] = turn
    return first


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(0.05, 1), min_size=1, max_size=7),
    st.lists(st.floats(0.0, 1), min_size=7, max_size=7),
)
def test_no_mean_is_likelier_than_the_bound_says(weights, chances):
    """Of coins of any weights whose expected mean is 1/2: all outcomes, counted exactly."""
    weights = np.array(weights) / sum(weights)
    chances = np.array(chances[: len(weights)])
    # Bring the expectation to 1/2 from either side.
    mean = weights @ chances
    if mean > 0.5:
        chances *= 0.5 / mean
    else:
        chances = 1 - (1 - chances) * 0.5 / (1 - mean)
    heads = np.array(list(product([0, 1], repeat=len(weights))))
    likely = np.where(heads, chances, 1 - chances).prod(axis=1)
    means = heads @ weights
    for mean in means:
        tail = likely[means >= mean - 1e-12].sum()
        most = doubt(mean, weights.max(), weights @ weights)
        assert np.log(max(tail, 1e-300)) <= most + 1e-9


def test_the_bound_is_exact_where_every_coin_falls_the_same_way():
    sure = doubt(np.array([1.0, 0.5, 0.2]), np.full(3, 1 / 19), np.full(3, 1 / 19))
    np.testing.assert_allclose(sure, [19 * np.log(0.5), 0.0, 0.0])


@pytest.mark.parametrize(("apart", "clients"), [(0.0, 1), (0.0, 4), (0.1, 3)])
def test_the_best_is_hardly_ever_dropped(apart, clients):
    """Many looks at twenty candidates, with others so close that chance often ranks them first;
    clients disagree about which are good, as unlike clients do. At a higher risk, and without the
    union bound over rivals, some runs do drop it.
    """
    lost = np.zeros(2, int)
    runs, turns = 30, 25
    for run in range(runs):
        rng = np.random.default_rng(run)
        means = np.full((20, clients), 0.5) + apart * (np.arange(20) > 0)[:, None]
        if clients > 1:
            tilt = rng.uniform(-0.3, 0.3, (20, clients))
            means += tilt - tilt.mean(axis=1, keepdims=True)
        losses = (rng.uniform(size=(20, clients, turns)) < means[:, :, None]).astype(float)
        lost += [
            drops(losses, delta)[0] > 0
            for delta in (0.05, 0.25 * 19)  # a risk of a quarter, as if for one rival
        ]
    assert lost[0] <= 0.05 * runs
    assert lost[1] > 0.05 * runs or apart  # else the looks would show nothing


def test_a_clearly_bad_candidate_of_fifty_is_out_after_13_examples():
    """It gets every example wrong that another gets right, with a look after every one."""
    losses = np.full((50, 1, 40), 0.0)
    losses[1] = 1.0
    first = drops(losses, rivals=49)
    assert first[1] == 13 and not first[[0, *range(2, 50)]].any()
    # In turns of 4 examples at 5 clients, 20 examples are one turn.
    assert drops(np.repeat(losses, 5, axis=1), examples=4, rivals=49)[1] == 1
    # Counts alone would need 20 of single examples, bets alone 3 turns of 20.
    risk = [by_count(losses[:, :, :n], np.ones(1), 1)[1, 0] for n in (19, 20)]
    assert risk[0] > np.log(0.025 / 49) >= risk[1]


def test_candidates_that_mostly_agree_are_told_apart_by_few_examples():
    """A third of the examples go wrong with one of them alone, the others alike with both."""
    rng = np.random.default_rng(4)
    both = (rng.uniform(size=60) < 0.5).astype(float)
    losses = np.stack([both, np.where(np.arange(60) % 3, both, 1.0)])[:, None]
    losses[0, 0, ::3] = 0.0
    first = drops(losses, rivals=49)
    assert not first[0] and 35 < first[1] < 55
    assert by_count(losses, np.ones(1), 1)[1, 0] > np.log(0.025 / 49)  # not by 60


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [0.7, 0.2, 0.1]])
def test_nobody_gets_rich_by_betting_on_what_is_no_worse(shares):
    """The expected wealth, counted exactly over all outcomes of two turns, is at most 1; if the
    candidate is worse at some clients and better at others it is below.
    """
    shares = np.array(shares)
    expected = []
    for tilt in (0.0, 0.4):
        gaps = tilt * np.array([1.0, -1.0, 0.0])[: len(shares)]
        gaps -= shares @ gaps
        chances = np.repeat(0.5 + 0.5 * gaps, 2)  # of a difference of 1, else it is -1
        outcomes = np.array(list(product([0, 1], repeat=2 * len(shares))))
        likely = np.where(outcomes, chances, 1 - chances).prod(axis=1)
        tables = np.stack([outcomes, 1 - outcomes], axis=1).reshape(-1, 2, len(shares), 2)
        risks = [by_bets(table.astype(float), shares)[0, 1] for table in tables]
        expected.append(likely @ np.exp(-np.array(risks)))
    assert expected[0] == pytest.approx(1.0)
    assert expected[1] <= 1 + 1e-12


def test_a_client_counts_by_its_share_however_often_it_was_asked():
    """Nine tenths of the examples say one thing in few turns, one tenth the opposite in many."""
    losses = np.full((2, 2, 60), np.nan)
    losses[:, 0, :40], losses[:, 1] = [[0.0], [1.0]], [[1.0], [0.0]]
    out = outclassed(losses, np.array([0.9, 0.1]), 0.05)
    assert out.tolist() == [False, True]
    assert outclassed(losses, np.array([0.1, 0.9]), 0.05).tolist() == [True, False]


def test_a_client_that_was_not_asked_might_think_otherwise():
    losses = np.full((2, 2, 1500), np.nan)
    losses[:, 0] = [[0.0], [1.0]]
    losses[0, 1] = 0.0
    for share, expected in ((0.4, True), (0.6, False)):
        assert outclassed(losses, np.array([1 - share, share]), 0.05)[1] == expected


def test_only_what_both_were_tried_on_counts():
    """A thousand easy examples beside a thousand hard ones say nothing of the candidates."""
    losses = np.full((2, 1, 2000), np.nan)
    losses[0, 0, :1000], losses[1, 0, 1000:] = 0.0, 1.0
    assert not outclassed(losses, np.ones(1), 0.05).any()
    # What a cell has in common may be taken off.
    rng = np.random.default_rng(0)
    both = np.stack([np.zeros((3, 30)), np.ones((3, 30))])
    shifted = both + rng.normal(size=(3, 30))
    assert outclassed(shifted, np.full(3, 1 / 3), 0.05).tolist() == [False, True]


def test_losses_that_are_not_in_the_unit_interval_drop_nobody():
    losses = np.zeros((2, 1, 500))
    losses[1] = 1.5
    assert not outclassed(losses, np.ones(1), 0.05).any()
    assert not outclassed(losses[:1], np.ones(1), 0.05).any()


def test_a_table_by_client_and_turn():
    table = by_turn(
        np.array([0, 1, 1, 0]), np.array([7, 7, 7, 3]), np.array([0, 2, 2, 0]), np.arange(4.0)
    )
    nan = np.nan
    np.testing.assert_array_equal(table, [[[3, nan], [0, nan]], [[nan, nan], [nan, 1.5]]])
