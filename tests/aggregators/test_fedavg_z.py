"""The naive average of what clients found alone; the kit tests order, wire and memory."""

import numpy as np

from fedbbpt.aggregators.fedavg_z import FedavgZ
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.random import stream
from fedbbpt.types import Space, Update

POOL = np.array([[0.0, 0], [4, 0], [0, 4], [1, 2], [9, 9]])


def sent(client, points, losses, weight=1.0):
    losses = np.array(losses, float)
    arrays = {
        "new_points": np.array(points, float).reshape(len(losses), -1),
        "new_losses": np.nan_to_num(losses),
        "answered": np.isfinite(losses),
    }
    return Update(client, 0, weight, arrays)


def test_in_a_box_it_is_the_weighted_mean_of_each_clients_best():
    bayes, merge = Bayes(batch=3), FedavgZ()
    state = bayes.init(Space("real", (1, 2)))
    memory = merge.init(state)
    np.testing.assert_array_equal(merge.best(bayes, state, memory), np.zeros((1, 2)))
    updates = [
        # (0, 0) was lucky once; its mean is .55.
        sent("a", [[0, 0], [0, 0], [4, 0], [8, 8]], [0.1, 1.0, 0.5, np.nan], 3.0),
        sent("b", [[0, 4], [1, 1]], [0.2, 0.3]),
        sent("c", [[7, 7]], [np.nan], 50.0),
    ]
    state, memory = merge.merge(state, updates, memory)
    np.testing.assert_array_equal(merge.best(bayes, state, memory), [[3.0, 1.0]])
    assert state.next_turns.tolist() == [0]
    plan = bayes.plan(state, stream(0, "test"))
    points = bayes.ask(plan, stream(1, "test"))
    assert points.shape == (3, 1, 2)  # the mean first, then what fills the batch
    np.testing.assert_array_equal(points[0], [[3.0, 1.0]])
    unheard, same = merge.merge(state, [sent("c", [[7, 7]], [np.nan])], memory)
    assert unheard is state and same is memory


def test_in_a_pool_it_is_the_candidate_nearest_to_the_mean():
    """However bad that one is: nobody has found it good."""
    bayes, merge = Bayes(batch=2), FedavgZ()
    state = bayes.init(Space("pool", (2,), points=POOL))
    updates = [sent("a", [[1], [3]], [0.1, 0.9]), sent("b", [[2], [3]], [0.1, 0.9])]
    state, memory = merge.merge(state, updates, merge.init(state))
    np.testing.assert_array_equal(merge.best(bayes, state, memory), POOL[3])
    others = set()
    for round in range(20):
        plan = bayes.plan(state, stream(0, "test", round))
        points = bayes.ask(plan, stream(0, "test"))
        np.testing.assert_array_equal(points[0], POOL[3])
        assert bayes.turns(plan, points).tolist() == [0, 0]
        others.add(int(plan.next_points[1, 0]))
    assert others == {0, 1, 2, 4}  # another one in every round, or nothing new were ever tried
