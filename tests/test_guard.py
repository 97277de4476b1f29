"""What leaves a client behind shields, and what the server makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from fedbbpt import secure
from fedbbpt.aggregators.mean import Mean
from fedbbpt.counting import SEARCH
from fedbbpt.engines.local import Local
from fedbbpt.errors import Refused
from fedbbpt.gather import VOCABULARY
from fedbbpt.guard import leaving, opened, silent
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.proposing import PROPOSE
from fedbbpt.round import work
from fedbbpt.shielding import in_order
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.mask import Mask
from fedbbpt.shields.noise import Noise
from fedbbpt.shields.quantise import Quantise
from fedbbpt.testing._require import bits, update_bits
from fedbbpt.testing.engines import play_rounds, toy_federation
from fedbbpt.testing.toys import CountingBox, toy_box
from fedbbpt.types import Job, Update

CLIP, NOISE = Clip(0.1), Noise(0.5)


class Safe:
    """A vault in memory."""

    def __init__(self, fill=b"s"):
        self.fill, self.said = fill, {}

    def secret(self, account):
        return account.encode().ljust(32, self.fill)

    def once(self, account, round, what, value):
        return self.said.setdefault((account, round, what), value)


def shielded(*shields, **options):
    """A toy federation behind shields, each client with its secret."""
    toy = toy_federation(**options)
    phases = {**toy.parts.phases, **secure.PHASES}
    parts = replace(toy.parts, shields=in_order(shields), phases=phases)
    safe = Safe()
    clients = {name: replace(client, vault=safe) for name, client in toy.clients.items()}
    return replace(toy, parts=parts, clients=clients)


def search(toy, client="site 0", **changes):
    """(job, update) of one client in round 0."""
    start = toy.parts.optimizer.init(toy.parts.prompt.space)
    job = Job("search", 0, 1, 0, toy.parts.broadcast(start))
    return job, work(toy.parts, replace(toy.clients[client], **changes), job)


# --- which phases say anything -------------------------------------------------------------------

FREE = {"setup", "advertise", "share", "answer"}
PRIVATE = {phase.name for phase in (*SEARCH, PROPOSE, VOCABULARY)}
SPEAKING = [
    ((), FREE | PRIVATE | {"search", "select", "evaluate"}),
    ((CLIP, Quantise()), FREE | PRIVATE | {"search", "select", "evaluate"}),
    ((CLIP, NOISE), FREE | {"search"}),
    ((Mask(),), FREE | {"search", "select", "evaluate"}),
    ((CLIP, NOISE, Mask()), FREE | {"search"}),
]


@pytest.mark.parametrize(("shields", "speaking"), SPEAKING)
def test_what_a_promise_does_not_cover_is_not_said(shields, speaking):
    toy = shielded(*shields)
    every = {p.name: p for p in (*toy.parts.phases.values(), PROPOSE, VOCABULARY)}
    final = {name for name in every if name.endswith("_all")}
    heard = {name for name, phase in every.items() if not silent(toy.parts, phase)}
    assert heard - final == speaking
    assert not heard & final or not any(shield.promises for shield in shields)


def test_a_silent_client_does_not_even_ask_the_model():
    toy = shielded(CLIP, NOISE)
    job = Job("select", 9, 1, 0, {"points": np.zeros((1, *toy.parts.prompt.space.shape))})
    client = toy.clients["site 0"]
    told = work(toy.parts, replace(client, open=None), job)
    assert (told.arrays, told.weight, told.queries) == ({}, 0.0, 0)
    public = work(toy.parts, replace(client, public=True), job)
    plain = work(toy_federation().parts, toy_federation().clients["site 0"], job)
    assert update_bits(replace(public, seconds=0)) == update_bits(replace(plain, seconds=0))


# --- losses --------------------------------------------------------------------------------------


def test_centred_losses_leave_and_lead_where_bare_ones_lead():
    """A bound that does not bind changes nothing but the level of the losses."""
    bare, bound = toy_federation(), shielded(Clip(100.0))
    job, update = search(bound)
    _, plain = search(bare)
    assert update.arrays.keys() == {"centred"}
    assert update.arrays["centred"].sum() == pytest.approx(0, abs=1e-12)
    losses = plain.arrays["losses"]
    read = opened(bound.parts, job, update)
    assert read.arrays["losses"] == pytest.approx(losses - losses.mean())
    assert update.arrays.keys() == {"centred"}  # what came is left alone
    ends = [play_rounds(toy, Local, 3)[-1].server.state.mean for toy in (bare, bound)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def test_a_bound_holds_whatever_the_losses_are():
    _, update = search(shielded(Clip(1e-3)))
    assert np.linalg.norm(update.arrays["centred"]) == pytest.approx(1e-3)


@pytest.mark.parametrize("shields", [(CLIP, NOISE), (CLIP, Quantise()), (CLIP,)])
def test_no_answer_becomes_the_mean_of_the_others(shields):
    """So that no hole tells anything, and nothing is refused for one."""
    toy = shielded(*shields)
    job = Job("search", 0, 1, 0, {})
    losses = np.array([[0.5, np.nan, 0.7, np.inf]])
    for given in (losses, np.full((1, 4), np.nan)):
        arrays, weight = leaving(toy.parts, toy.clients["site 0"], job, {"losses": given}, 6.0)
        read = opened(toy.parts, job, Update("site 0", 0, weight, arrays)).arrays["losses"]
        assert np.isfinite(read).all()
    clip = shielded(Clip(100.0))
    arrays, _ = leaving(clip.parts, clip.clients["site 0"], job, {"losses": losses}, 6.0)
    assert arrays["centred"] == pytest.approx(np.array([[-0.1, 0.0, 0.1, 0.0]]))


def test_a_client_without_a_step_sends_nothing():
    toy = shielded(CLIP, NOISE)
    job = Job("search", 0, 1, 0, {}, {"site 0": 0})
    start = toy.parts.optimizer.init(toy.parts.prompt.space)
    told = work(toy.parts, toy.clients["site 0"], replace(job, arrays=toy.parts.broadcast(start)))
    assert (told.arrays, told.weight) == ({}, 0.0)


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [Es(pairs=2), Cmaes(popsize=4)])
def test_of_a_state_it_is_the_move_that_is_bounded(optimizer):
    """Far from the origin a bound on where a client is would undo everything."""
    toy = shielded(Clip(1e-2), optimizer=optimizer, wire="state")
    away = optimizer.init(toy.parts.prompt.space)
    away = away._replace(mean=away.mean + 100.0)
    job = Job("search", 0, 1, 0, toy.parts.broadcast(away))
    update = work(toy.parts, toy.clients["site 0"], job)
    fields = [update.arrays[name].reshape(-1) for name in update.arrays]
    assert np.linalg.norm(np.concatenate(fields)) <= 1e-2
    read = opened(toy.parts, job, update)
    assert np.abs(read.arrays["mean"] - 100.0).max() < 1e-2


def test_a_wide_bound_leaves_a_sent_state_as_it_is():
    options = {"optimizer": Cmaes(popsize=4), "aggregator": Mean(), "wire": "state"}
    bare, bound = toy_federation(**options), shielded(Clip(1e6), **options)
    for one, other in zip(*(play_rounds(toy, Local, 3) for toy in (bare, bound)), strict=True):
        assert other.server.state.mean == pytest.approx(one.server.state.mean, abs=1e-12)


# --- noise and weights ---------------------------------------------------------------------------


def test_behind_noise_all_weigh_the_same():
    for shields, weight in (((CLIP,), 6.0), ((CLIP, NOISE), 1.0)):
        assert search(shielded(*shields))[1].weight == weight


def test_a_task_that_runs_twice_says_the_same_and_others_say_something_else():
    toy = shielded(CLIP, NOISE)
    _, first = search(toy)
    again = search(shielded(CLIP, NOISE))[1]  # in a process that remembers nothing
    assert bits(first.arrays) == bits(again.arrays)
    strange = search(toy, vault=Safe(b"t"))[1]
    noises = [u.arrays["centred"] for u in (first, strange)]
    assert np.abs(noises[0] - noises[1]).min() > 1e-6


def test_without_a_secret_nothing_leaves():
    for shields in ((CLIP, NOISE), (Mask(),)):
        toy = shielded(*shields, directions="shared")
        with pytest.raises(Refused, match=r"no secret|agreed on no masks"):
            search(toy, vault=None)


def test_what_comes_is_as_small_as_it_was_sent():
    toy = shielded(CLIP, Quantise(8))
    played = play_rounds(toy, Local, 1)[0]
    assert {u.arrays["centred.quantised"].dtype for u in played.sent} == {np.dtype(np.uint8)}
    assert all(u.arrays.keys() == {"losses"} for u in played.updates)


def test_holes_of_a_leaky_box_pass_every_shield():
    box = lambda: CountingBox(toy_box(), nans=0.3, times=None)  # noqa: E731
    toy = shielded(CLIP, NOISE, Quantise(), make_box=box)
    ends = play_rounds(toy, Local, 3)
    assert sum(u.dropped for played in ends for u in played.sent) > 0
    assert np.isfinite(ends[-1].server.state.mean).all()
