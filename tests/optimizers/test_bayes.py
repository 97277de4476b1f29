"""Bayesian search in a box and over a pool; the kit tests the rest."""

import time

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from fedbbpt.errors import ConfigError
from fedbbpt.maths.gp import Matern, condition, observe
from fedbbpt.maths.gp_coupled import Coupled
from fedbbpt.maths.gp_fit import Prior, fit
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.random import stream
from fedbbpt.types import Space

BOTH = pytest.mark.parametrize("acquisition", ["ei", "thompson"])


def over(pool):
    """A fresh state over these candidates."""
    pool = np.asarray(pool, float)
    return Bayes().init(Space("pool", pool.shape[1:], points=pool))


def grid(n=60):
    """Candidates along a curve in five dimensions."""
    t = np.linspace(-1, 1, n)
    return np.stack([t, t**2, np.sin(3 * t), np.cos(2 * t), 0 * t], axis=1)


def play(bayes, state, loss, steps, seed=0):
    """The state after some steps, and every candidate on the way, step by step."""
    asked = []
    for step in range(steps):
        points = bayes.ask(state, stream(seed, "test", step))
        asked.append(points)
        state = bayes.tell(state, points, np.array([loss(point) for point in points]))
    return state, asked


def known(state, points, losses, weights, turns=None, clients=None):
    """The state of a server that has heard of these observations."""
    none = np.zeros(len(points), int)
    return state._replace(
        seen_points=points.reshape(len(points), -1),
        seen_losses=np.array(losses),
        seen_weights=np.array(weights, float),
        seen_turns=none if turns is None else np.array(turns),
        seen_clients=(none if clients is None else np.array(clients)).astype(np.uint64),
    )


def rows_of(state, points):
    return [int(np.flatnonzero((state.pool == point).all(axis=1))[0]) for point in points]


# --- the first design ----------------------------------------------------------------------------


def test_the_first_design_covers_all_of_the_box():
    """The public code stays in its positive corner: a thousandth of ten dimensions."""
    bayes = Bayes(batch=64, bound=2.0)
    points = bayes.ask(bayes.init(Space("real", (2, 5))), stream(0, "test"))
    assert points.shape == (64, 2, 5)
    np.testing.assert_array_equal(points[0], 0.0)  # the starting prompt
    assert np.abs(points).max() < 2.0
    quarters = np.floor(points[1:] + 2).astype(int)
    for row, column in np.ndindex(2, 5):
        # 64 points of a Sobol sequence put 16 in each quarter of a side; one became the start.
        assert (np.bincount(quarters[:, row, column], minlength=4) >= 15).all()


def test_a_design_of_several_batches_goes_on_without_the_start():
    bayes = Bayes(batch=4, initial=8)
    _, asked = play(bayes, bayes.init(Space("real", (3,))), lambda p: p.sum(), 2)
    assert (asked[1] != 0).all() and len(np.unique(np.concatenate(asked), axis=0)) == 8


def test_a_pools_design_is_its_first_row_then_always_the_farthest():
    state = over([[0.0], [1.0], [9.0], [10.0], [4.0], [6.0]])
    bayes = Bayes(batch=2, initial=5)
    _, asked = play(bayes, state, lambda p: 0.0, 2)
    # From 0 the farthest is 10, from both of them 4 (gap 4, as 6 has); then 6 and 9 or so.
    assert [rows_of(state, points) for points in asked] == [[0, 3], [4, 5]]


def test_the_design_looks_at_what_others_have_tried():
    state = over([[0.0], [1.0], [9.0], [10.0], [4.0]])
    state = known(state, np.array([[0.0], [3.0]]), [1.0, 1.0], [8.0, 8.0])
    points = Bayes(batch=2, initial=5).ask(state, stream(0, "test"))
    assert rows_of(state, points) == [4, 1]


# --- the search ----------------------------------------------------------------------------------


@BOTH
def test_it_finds_the_best_of_a_pool_long_before_it_has_tried_all(acquisition):
    """In 16 of 60 candidates, by noisy losses; 16 random ones hold the best in 27 % of searches."""
    pool, found = grid(), 0
    for seed in range(6):
        noise = np.random.default_rng(seed)

        def loss(point, noise=noise):
            return np.sin(5 * point[0]) + 0.3 * point[0] + 0.05 * noise.standard_normal()

        bayes = Bayes(acquisition=acquisition)
        state, _ = play(bayes, over(pool), loss, 4, seed)
        true = np.sin(5 * pool[:, 0]) + 0.3 * pool[:, 0]
        best = bayes.best(state)
        found += np.sin(5 * best[0]) + 0.3 * best[0] < true.min() + 0.05
    assert found >= 5


@BOTH
def test_it_finds_the_bottom_of_a_box(acquisition):
    """Branin's function, scaled to the box: minimum .398, median over it about 26."""

    def branin(point):
        x, y = 7.5 * point[0] + 2.5, 7.5 * point[1] + 7.5
        bend = y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6
        return bend**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10

    ends = []
    for seed in range(3):
        bayes = Bayes(acquisition=acquisition)
        state, asked = play(bayes, bayes.init(Space("real", (2,))), branin, 10, seed)
        assert np.abs(np.concatenate(asked)).max() <= 1
        ends.append(branin(bayes.best(state)))
    assert np.median(ends) < 0.5 and max(ends) < 1.0


def test_a_step_tries_distinct_places():
    """Twenty-five maximisers of one acquisition would meet in its few summits."""
    bayes = Bayes(batch=5)
    state, _ = play(bayes, bayes.init(Space("real", (2,))), lambda p: ((p - 0.3) ** 2).sum(), 3)
    points = bayes.ask(state, stream(9, "test"))
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(5, 1)]
    assert gaps.min() > 1e-3


def test_the_best_has_the_lowest_expectation_and_not_the_luckiest_loss():
    """A lucky loss of one example, among neighbours that a hundred examples say are bad."""
    pool = np.linspace(0, 1, 11)[:, None]
    bend = np.where(pool[:, 0] < 0.35, 0.45, 0.8)
    losses = np.concatenate([bend + 0.05, bend - 0.05])
    rows = np.tile(np.arange(11.0), 2)[:, None]
    lucky, weights = np.concatenate([losses, [0.3]]), np.array([*[50.0] * 22, 1.0])
    weights[[8, 19]] = 0.01
    state = known(over(pool), np.concatenate([rows, [[8.0]]]), lucky, weights)
    assert Bayes().best(state)[0] < 0.35
    # Had it come from as many examples as the others, it would be believed.
    weights[22] = 50.0
    assert Bayes().best(state._replace(seen_weights=weights))[0] == pool[8, 0]


def test_what_was_told_here_counts_like_what_all_know():
    """The process is the one of all observations together, new ones weighing the others' mean."""
    bayes, pool = Bayes(), grid(20)
    rows, losses = np.arange(10), np.sin(4 * np.arange(10.0))
    one = known(over(pool), rows[:6, None].astype(float), losses[:6], [2.0, 6.0] * 3)
    one = bayes.tell(one, pool[6:10], losses[6:])
    every = known(over(pool), rows[:, None].astype(float), losses, [*[2.0, 6.0] * 3, *[4.0] * 4])
    np.testing.assert_array_equal(*(bayes.ask(s, stream(0, "test")) for s in (one, every)))
    # Twice as many examples everywhere change nothing: noise is measured, not assumed.
    double = every._replace(seen_weights=2 * every.seen_weights)
    np.testing.assert_array_equal(
        bayes.ask(double, stream(0, "test")), bayes.ask(every, stream(0, "test"))
    )


@pytest.mark.parametrize(
    ("options", "prior"),
    [
        ({}, Prior(lengthscale=(np.median(pdist(grid(20))), 1.0))),
        ({"lengthscale": "gamma"}, Prior(gamma=(3.0, 6.0))),
        ({"ard": True, "lengthscale": "gamma"}, Prior(gamma=(3.0, 6.0))),
    ],
)
def test_the_model_is_the_fitted_process(options, prior):
    bayes, pool = Bayes(**options), grid(20)
    losses = np.sin(np.arange(10.0))
    state = known(over(pool), np.arange(0.0, 20.0, 2)[:, None], losses, np.full(10, 7.0))
    model = bayes._model(state)
    kernel, noise = fit(observe(pool[::2], losses), prior, ard=bayes.ard)
    assert model.kernel.lengthscale.shape == ((5,) if bayes.ard else (1,))
    np.testing.assert_allclose(model.kernel.lengthscale, kernel.lengthscale, rtol=0.02)
    direct = condition(kernel, observe(pool[::2], losses), noise)
    np.testing.assert_allclose(model.at(pool).mean, direct.at(pool).mean, atol=0.02)


# --- what was tried ------------------------------------------------------------------------------


def test_untried_candidates_first_then_answered_then_unanswered():
    pool, bayes = grid(8), Bayes(batch=3, initial=2)
    state = known(
        over(pool), np.arange(6.0)[:, None], [0.5, 0.1, 0.9, 0.4, 0, 0], [4.0] * 4 + [0] * 2
    )
    rows = rows_of(state, bayes.ask(state, stream(0, "test")))
    assert set(rows[:2]) == {6, 7} and rows[2] < 4
    everything = rows_of(state, Bayes(batch=8, initial=2).ask(state, stream(0, "test")))
    assert sorted(everything) == list(range(8)) and set(everything[6:]) == {4, 5}


def test_repeats_may_be_worth_more_than_what_is_untried():
    """The best one is known from one example only, and what is untried lies among the bad."""
    pool = np.array([[0.0], [3.0], [3.01], [3.02], [3.03], [3.04]])
    state = known(over(pool), np.arange(4.0)[:, None], [0.0, 1.0, 1.01, 0.99], [0.1, 9, 9, 9])
    rows = [
        rows_of(state, Bayes(batch=1, initial=2, repeats=repeats).ask(state, stream(0, "test")))[0]
        for repeats in (True, False)
    ]
    assert rows[0] == 0 and rows[1] >= 4


def test_a_batch_is_no_larger_than_the_pool_and_a_candidate_that_is_in_it_twice_counts_once():
    state = over([[0.0], [1.0], [0.0], [2.0], [1.0]])
    points = Bayes(batch=9).ask(state, stream(0, "test"))
    assert sorted(points[:, 0]) == [0.0, 1.0, 2.0]
    after = Bayes(batch=9).tell(state, points, np.array([1.0, 2.0, 3.0]))
    assert set(after.new_points[:, 0]) == {0.0, 1.0, 3.0}
    assert Bayes(batch=9).ask(after, stream(1, "test")).shape == (3, 1)


def test_new_candidates_may_be_added_at_the_end():
    bayes, pool = Bayes(batch=2, initial=2), grid(6)
    state, _ = play(bayes, over(pool), lambda p: p[0], 3)
    more = state._replace(pool=np.concatenate([pool, pool[:3] + 0.5]))
    assert min(rows_of(more, bayes.ask(more, stream(0, "test")))) >= 6
    np.testing.assert_array_equal(bayes.best(more), bayes.best(state))


def test_a_place_without_an_answer_is_not_asked_for_ever():
    """The model refuses the most promising corner; the search goes where it gets answers."""

    def loss(point):
        return np.nan if (point > 0.6).all() else -point.sum()

    bayes = Bayes(batch=2, initial=4)
    state, asked = play(bayes, bayes.init(Space("real", (2,))), loss, 14)
    refused = np.isnan([[loss(point) for point in points] for points in asked])
    assert 0 < refused.sum() < 14
    assert -loss(bayes.best(state)) > 1.3  # 1.6 at most


def test_before_any_answer_it_stays_at_the_start_and_goes_on_covering():
    bayes, pool = Bayes(batch=2, initial=2), grid(9)
    state, asked = play(bayes, over(pool), lambda p: np.nan, 5)
    np.testing.assert_array_equal(bayes.best(state), pool[0])
    assert sorted(set(rows_of(state, np.concatenate(asked)))) == list(range(9))


@pytest.mark.parametrize(
    "space", [Space("pool", (5,), points=grid()), Space("real", (5,))], ids=lambda s: s.kind
)
def test_one_answer_is_enough_to_go_on(space):
    bayes = Bayes(batch=2, initial=2)
    state = bayes.init(space)
    first = bayes.ask(state, stream(0, "test"))
    state = bayes.tell(state, first, np.array([np.nan, 0.5]))
    np.testing.assert_array_equal(bayes.best(state), first[1])
    assert np.isfinite(bayes.ask(state, stream(1, "test"))).all()


# --- what the server plans -----------------------------------------------------------------------


def test_clients_ask_what_the_server_planned_and_know_nothing_else():
    bayes, pool = Bayes(batch=3, initial=2, repeats=True), grid(20)
    rows = np.array([0, 5, 9, 14, 5, 9])
    server = known(
        over(pool), rows[:, None] * 1.0, pool[rows, 0], np.ones(6), turns=[0, 0, 0, 0, 1, 1]
    )
    plan = bayes.plan(server, stream(0, "test"))
    shared = {name: getattr(plan, name) for name in Bayes.shares}
    assert sum(value.nbytes for value in shared.values()) == 3 * 16
    client = over(pool)._replace(**shared)
    points = bayes.ask(client, stream(1, "other"))
    np.testing.assert_array_equal(points, bayes.ask(server, stream(0, "test")))
    before = {row: int((rows == row).sum()) for row in range(20)}
    expected = [before[row] for row in rows_of(client, points)]
    assert bayes.turns(client, points).tolist() == expected and sum(expected)
    told = bayes.tell(client, points, np.array([0.1, np.nan, 0.3]))
    assert told.new_turns.tolist() == expected and not len(told.next_points)
    # From then on a client goes on alone.
    assert len(bayes.ask(told, stream(2, "test"))) == 3


def test_what_somebody_else_planned_comes_first():
    bayes = Bayes(batch=3)
    state = over(grid(9))._replace(next_points=np.array([[4.0]]), next_turns=np.array([7]))
    plan = bayes.plan(state, stream(0, "test"))
    assert plan.next_points[0] == 4 and plan.next_turns.tolist() == [7, 0, 0]
    assert len(np.unique(plan.next_points)) == 3
    box = bayes.init(Space("real", (2,)))._replace(
        next_points=np.array([[0.5, 0.5]]), next_turns=np.array([0])
    )
    points = bayes.ask(box, stream(0, "test"))
    assert points.shape == (3, 2) and points[0].tolist() == [0.5, 0.5] and points[1:].all()
    assert bayes.turns(box, points) is None


def test_a_candidate_whose_examples_are_used_up_is_not_asked_again():
    """Nobody answered its third turn. To keep the batch's size it may be named, with a turn for
    which nobody has examples, so that nobody pays.
    """
    bayes, pool = Bayes(batch=3, initial=2, repeats=True), grid(4)
    rows = np.array([0.0, 1, 2, 3, 0, 1, 0])[:, None]
    losses, weights = [0.1, 0.9, 0.9, 0.9, 0.1, 0.9, 0.0], [1.0] * 6 + [0]
    state = known(over(pool), rows, losses, weights, turns=[0, 0, 0, 0, 1, 1, 2])
    assert sorted(rows_of(state, bayes.ask(state, stream(0, "test")))) == [1, 2, 3]
    assert not bayes.done(state)
    every = Bayes(batch=4, initial=2, repeats=True).plan(state, stream(0, "test"))
    assert every.next_points[3] == 0 and every.next_turns[3] == 2**31
    assert sorted(every.next_turns[:3]) == [1, 1, 2]
    # A later turn that one of the clients did answer is another matter.
    heard = known(over(pool), rows, losses, [1.0] * 7, turns=[0, 0, 0, 0, 1, 1, 2])
    assert bayes.turns(heard, pool).tolist() == [3, 2, 1, 1]


def test_it_is_done_when_nothing_is_left():
    pool = grid(3)
    once, again = Bayes(initial=2), Bayes(initial=2, repeats=True)
    state = known(over(pool), np.arange(3.0)[:, None], [0.5, 0.4, 0.6], np.ones(3))
    assert not once.done(over(pool)) and not once.done(once.init(Space("real", (2,))))
    assert once.done(state) and not again.done(state)
    rows = np.tile(np.arange(3.0), 2)[:, None]
    used = known(over(pool), rows, [0.5, 0.4, 0.6, 0, 0, 0], [1] * 3 + [0] * 3, [0] * 3 + [1] * 3)
    assert again.done(used)
    np.testing.assert_array_equal(again.best(used), pool[1])


def test_candidates_beaten_beyond_doubt_are_out():
    """Two of five get 20 examples wrong that another gets right; then that one meets harder ones,
    on which nobody else is tried, and has the highest mean of all.
    """
    pool = grid(5)
    rows = np.repeat([0.0, 1, 2, 1], [20, 20, 20, 60])[:, None]
    losses = np.repeat([0.7, 0.0, 0.7, 1.0], [20, 20, 20, 60])
    turns = [*range(20), *range(20), *range(20), *range(20, 80)]
    state = known(over(pool), rows, losses, np.ones(120), turns)
    bayes, plain = (Bayes(batch=3, initial=2, repeats=True, delta=d) for d in (0.05, 0.0))
    assert bayes._standing(state).out.tolist() == [True, False, True, False, False]
    assert sorted(rows_of(state, bayes.ask(state, stream(0, "test")))) == [1, 3, 4]
    np.testing.assert_array_equal(bayes.best(state), pool[1])
    assert not (plain.best(state) == pool[1]).all() and not plain._standing(state).out.any()


def test_it_ends_where_nothing_promises_to_be_better():
    """All of ten were tried and answered alike but for one, again and again."""
    pool = grid(10)
    rows = np.tile(np.arange(10.0), 8)[:, None]
    losses = np.tile([0.9] * 4 + [0.1] + [0.9] * 5, 8)
    state = known(over(pool), rows, losses, np.ones(80), np.repeat(np.arange(8), 10))
    options = {"batch": 2, "initial": 99, "repeats": True, "delta": 0}
    assert Bayes(tolerance=0.01, **options).done(state)
    assert not Bayes(**options).done(state) and not Bayes(tolerance=1e-9, **options).done(state)
    # What was tried once by one client may still be better.
    once = known(over(pool), rows[:10], losses[:10], np.ones(10), np.zeros(10))
    assert not Bayes(tolerance=0.01, **options).done(once)


def test_it_ends_where_the_best_could_hardly_be_better():
    pool, options = grid(10), {"batch": 2, "initial": 3, "repeats": True, "delta": 0}
    rows = np.tile(np.arange(3.0), 8)[:, None]
    state = known(over(pool), rows, np.tile([0.9, 0, 0.9], 8), np.ones(24), np.repeat(range(8), 3))
    assert Bayes(tolerance=0.05, **options).done(state)
    assert not Bayes(tolerance=1e-6, **options).done(state)


def test_in_a_tie_the_start_is_kept():
    pool = grid(6)
    rows, turns = np.tile(np.arange(6.0), 3)[:, None], np.repeat(np.arange(3), 6)
    state = known(over(pool), rows, np.ones(18), np.ones(18), turns)
    np.testing.assert_array_equal(Bayes().best(state), pool[0])


def test_a_pool_smaller_than_the_design_is_searched_all_the_same():
    pool = grid(4)
    rows, turns = np.tile(np.arange(4.0), 3)[:, None], np.repeat(np.arange(3), 4)
    state = known(over(pool), rows, np.tile([0.9, 0.1, 0.8, 0.9], 3), np.ones(12), turns)
    asked = Bayes(batch=1, initial=16, repeats=True, delta=0).ask(state, stream(0, "test"))
    np.testing.assert_array_equal(asked[0], pool[1])


def test_what_it_expects_of_every_candidate():
    bayes, pool = Bayes(), grid(12)
    state = over(pool)
    assert np.isnan(bayes.expected(state)[:, :2]).all() and not bayes.expected(state)[:, 2].any()
    state = known(state, np.array([[0.0], [5], [5]]), [0.1, 0.8, 0.9], np.ones(3), [0, 0, 1])
    mean, error, count = bayes.expected(state).T
    assert count[[0, 4, 5]].tolist() == [1, 0, 2]
    assert mean[0] < mean[5] and error[5] < error[11]
    assert bayes.expected(bayes.init(Space("real", (2,)))) is None


# --- the coupled kernel --------------------------------------------------------------------------


def coupled_state(far=True):
    """Candidates of two kinds, as three clients see them; where they lie says nothing."""
    rng = np.random.default_rng(1)
    pool = np.concatenate([np.zeros((1, 4)), rng.uniform(-1, 1, (11, 4))])
    kinds = np.arange(12) % 2
    table = np.where(kinds[:, None], [0.2, 0.5, 0.8], [0.8, 0.5, 0.2 + 0.4 * far])
    table = table + 0.02 * rng.standard_normal((12, 3))
    rows = np.repeat(np.arange(12.0), 3)[:, None]
    clients = np.tile([1, 2, 3], 12)
    return known(over(pool), rows, table.reshape(-1), np.ones(36), clients=clients), kinds


def test_the_coupled_kernel_sees_which_candidates_did_alike():
    state, kinds = coupled_state()
    model = Bayes(kernel="coupled")._model(state)
    order = np.lexsort(state.pool.T[::-1])  # as the process keeps its points
    np.testing.assert_array_equal(model.seen.points, state.pool[order])
    covariance = model.kernel(model.seen.points, model.seen.points)
    same = kinds[order][:, None] == kinds[order]
    np.fill_diagonal(same, False)
    assert covariance[same].min() > covariance[~same & ~np.eye(12, dtype=bool)].max()
    assert isinstance(Bayes()._model(state).kernel, Matern)


def test_a_gap_in_a_score_vector_is_filled_and_two_candidates_are_too_few():
    state, _ = coupled_state()
    kept = np.ones(36, bool)
    kept[[4, 17]] = False
    fields = ("seen_points", "seen_losses", "seen_weights", "seen_turns", "seen_clients")

    def only(which):
        return state._replace(**{name: getattr(state, name)[which] for name in fields})

    bayes = Bayes(kernel="coupled", residual=0.0, lengthscale="gamma")
    model = bayes._model(only(kept))
    assert isinstance(model.kernel, Coupled) and model.kernel.residual == 0.0
    assert model.kernel.scores.shape == (12, 3)
    assert isinstance(bayes._model(only(np.arange(36) < 6)).kernel, Matern)


@pytest.mark.parametrize("options", [{}, {"kernel": "coupled"}], ids=["matern", "coupled"])
def test_the_servers_part_of_a_round_takes_less_than_a_second(options):
    """Two hundred candidates that five clients answered; measured .05 and .3 s of CPU."""
    rng = np.random.default_rng(0)
    pool = np.concatenate([np.zeros((1, 20)), rng.standard_normal((249, 20))])
    rows = np.repeat(np.arange(200.0), 5)[:, None]
    losses = np.tanh(pool[rows[:, 0].astype(int), 0]) + 0.1 * rng.standard_normal(1000)
    state = known(over(pool), rows, losses, np.ones(1000), clients=np.tile(np.arange(1, 6), 200))
    began = time.process_time()
    bayes = Bayes(repeats=True, **options)
    assert len(bayes.plan(state, stream(0, "test")).next_points) == 4
    assert time.process_time() - began < 1.0


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [None, np.zeros((0, 3))])
def test_a_pool_without_candidates(points):
    with pytest.raises(ConfigError, match="a pool without candidates"):
        Bayes().init(Space("pool", (3,), points=points))


def test_a_candidate_from_elsewhere():
    with pytest.raises(ValueError, match="none of the 60 of the pool"):
        Bayes().tell(over(grid()), np.zeros((1, 5)), np.array([0.5]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 0}, "batch is 0 and initial 8"),
        ({"initial": 1}, "initial 1; they must be at least 1 and 2"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"bound": float("nan")}, "bound is nan"),
        ({"acquisition": "ucb"}, "acquisition is 'ucb'; it must be one of"),
        ({"lengthscale": "long"}, "lengthscale is 'long'"),
        ({"kernel": "linear"}, "kernel is 'linear'"),
        ({"kernel": "coupled", "ard": True}, "has one lengthscale"),
        ({"residual": -1.0}, "residual is -1.0"),
        ({"tolerance": float("inf")}, "tolerance is inf"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"examples": 0}, "examples is 0"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Bayes(**options)
