"""The table [shields]: what it makes, and which runs it refuses before anything is paid."""

import math
import sys

import pytest

from fedbbpt.build import build
from fedbbpt.config import resolve
from fedbbpt.errors import ConfigError, FedbbptError, Incompatible, MissingExtra
from fedbbpt.ledger import Ledger
from fedbbpt.needs import count_needs
from fedbbpt.protection import notes, shields_of
from fedbbpt.sharing import share_out, tables
from fedbbpt.shielding import called
from fedbbpt.testing.toys import ToyEncoder, toy_batch

CLIP, NOISE = {"norm": 0.1}, {"epsilon": 8.0}


def config_of(shields, folder, **sections):
    tree = {
        "method": {"name": "fedes"},
        "data": {"train": ""},
        "prompt": {"template": "It was {label} ."},
        "shields": shields,
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return resolve({"rounds": {"max": 6}, **tree}, folder)


def build_from(shields, folder, clients=4, **sections):
    config = config_of(shields, folder, **sections)
    own = {f"site {i}": zip(b.inputs, map("abc".__getitem__, b.targets), strict=True) for i, b in
           enumerate(toy_batch(8, 2, seed) for seed in range(clients))}  # fmt: skip
    split = share_out(config, *tables({k: list(v) for k, v in own.items()}, (), config.data))
    federation = build(config, split, Ledger(), ToyEncoder())
    count_needs(federation)
    return federation


# --- the table -----------------------------------------------------------------------------------


def test_shields_come_in_their_own_order_and_back_out_of_a_config(tmp_path):
    shields = {"mask": {}, "quantise": {"bits": 6}, "noise": NOISE, "clip": CLIP}
    config = config_of(shields, tmp_path)
    assert [called(s) for s in shields_of(config)] == ["clip", "noise", "quantise", "mask"]
    assert resolve(config.tree(), tmp_path) == config
    assert config.tree()["shields"] == shields
    assert shields_of(config_of({}, tmp_path)) == ()
    assert "centred" not in config.toml()  # nor anything else that only a program may say


def test_the_multiplier_follows_from_epsilon_and_the_rounds(tmp_path):
    spent = {}
    for most in (1, 5, 20):
        noise = shields_of(config_of({"clip": CLIP, "noise": NOISE}, tmp_path,
                                     rounds={"max": most}))[1]  # fmt: skip
        assert noise.spent(most).epsilon == pytest.approx(8.0, abs=1e-3)
        told = [noise.spent(rounds).epsilon for rounds in range(most + 1)]
        assert told[0] == 0 and told == sorted(set(told))
        spent[most] = noise.scale
    assert spent[5] == pytest.approx(spent[1] * math.sqrt(5))
    assert spent[20] == pytest.approx(spent[1] * math.sqrt(20))


@pytest.mark.parametrize("epsilons", [(8.0, 3.0, 1.0)])
def test_less_epsilon_is_more_noise(epsilons, tmp_path):
    tables_ = [{"clip": CLIP, "noise": {"epsilon": e}} for e in epsilons]
    stds = [shields_of(config_of(table, tmp_path))[1].std for table in tables_]
    assert stds == sorted(stds) and len(set(stds)) == 3


def test_only_a_threshold_of_its_own_tells_how_many_noises_are_in_a_sum(tmp_path):
    """And one of them a site can take off again, for it is its own."""
    for mask, among in (({}, 1), ({"threshold": 2}, 1), ({"threshold": 7}, 6)):
        shields = {"clip": CLIP, "noise": NOISE, "mask": mask}
        noise = shields_of(config_of(shields, tmp_path))[1]
        assert noise.among == among
        assert noise.spent(6).epsilon == pytest.approx(8.0, abs=1e-3)
        alone = shields_of(config_of({"clip": CLIP, "noise": NOISE}, tmp_path))[1]
        assert noise.std == pytest.approx(alone.std / math.sqrt(among))


FAULTS = [
    ({"nois": {}}, "no shields plug-in is named 'nois'; did you mean 'noise'"),
    ({"clip": {"norms": 1.0}}, "unknown key shields.clip.norms; did you mean 'norm'"),
    ({"clip": {}}, "shields.clip lacks norm"),
    ({"clip": {"norm": -1.0}}, "clip.norm is -1.0"),
    ({"clip": 1.0}, "shields is 1.0: Input should be a valid dictionary"),
    ({"clip": {"norm": 1.0, "fields": ["mean"]}}, "unknown key shields.clip.fields"),
    ({"noise": NOISE}, "the shield noise needs the shield clip before it"),
    ({"clip": CLIP, "noise": {}}, "either a multiplier or an epsilon"),
    ({"clip": CLIP, "noise": {"multiplier": 1.0, "epsilon": 1.0}}, "either a multiplier"),
    ({"clip": CLIP, "noise": {"epsilon": 0.0}}, "noise.epsilon is 0.0"),
    ({"clip": CLIP, "noise": {"epsilon": 1.0, "delta": 2.0}}, "noise.delta is 2.0"),
    ({"clip": CLIP, "noise": {"epsilon": 1.0, "rounds": 1}}, "unknown key shields.noise.rounds"),
    ({"mask": {"threshold": 5}}, "4 clients take part in a round, and the secure sum"),
    ({"mask": {"threshold": 2}}, "threshold is 2 of 4 clients; it must be above half"),
]


@pytest.mark.parametrize(("shields", "sentence"), FAULTS)
def test_a_wrong_table_is_refused_in_one_sentence(shields, sentence, tmp_path):
    with pytest.raises(FedbbptError) as caught:
        build_from(shields, tmp_path)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


# --- parts that do not fit -----------------------------------------------------------------------

CLIPPED, NOISY, MASKED = {"clip": CLIP}, {"clip": CLIP, "noise": NOISE}, {"mask": {}}
TOKENS = {"prompt": {"kind": "tokens", "slots": 2, "candidates": 8}}
UNFIT = [
    (CLIPPED, {"method": {"name": "fedbpt"}}, "cma compares the losses"),
    (MASKED, {"method": {"name": "fedbpt"}}, "cma compares the losses"),
    (CLIPPED, {"method": {"name": "fedwords"}, **TOKENS}, "coordinate reads more in losses"),
    (NOISY, {"rounds": {"steps": 2, "max": 3}}, "cannot replay a second step"),
    (NOISY, {"method": {"name": "fedavg-bbt", "wire": "state"}}, "cmaes sends sigma, which"),
    (NOISY, {"method": {"name": "zero-shot"}}, "[shields] protect what a search sends"),
    (MASKED, {"method": {"aggregator": {"name": "median"}}}, "median looks at each client's"),
    (MASKED, {"method": {"aggregator": {"robust": "krum"}}}, "adam looks at each client's"),
    (MASKED, {"method": {"directions": "distinct"}}, "all clients try the same candidates"),
    (MASKED, {"method": {"name": "fedwords"}, **TOKENS}, "elect looks at each client's"),
    (NOISY, {"prompt": {"vocabulary": "clients"}}, "sends n-grams from each client"),
    (MASKED, {"prompt": {"mapping": "counts"}}, "counts of the model's answers"),
    (MASKED, {"method": {"clients": "pooled"}}, "1 clients take part in a round"),
]


@pytest.mark.parametrize(("shields", "sections", "sentence"), UNFIT)
def test_parts_that_shields_leave_nothing_for_are_refused(shields, sections, sentence, tmp_path):
    with pytest.raises((Incompatible, ConfigError)) as caught:
        build_from(shields, tmp_path, **sections)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


FIT = [
    ({**NOISY, "quantise": {}, "mask": {"threshold": 3}}, {}),
    (NOISY, {"method": {"aggregator": {"name": "median"}}}),
    (NOISY, {"method": {"name": "fedavg-bbt", "wire": "replay"}, "rounds": {"steps": 1}}),
    (NOISY, {"method": {"name": "fedone"}, **TOKENS}),
    (NOISY, {"method": {"wire": "state"}, "rounds": {"steps": 3}}),
    (MASKED, {"method": {"name": "fedavg-bbt", "wire": "state"}}),
    (CLIPPED, {"prompt": {"mapping": "names"}}),
]


@pytest.mark.parametrize(("shields", "sections"), FIT)
def test_parts_that_fit_are_taken(shields, sections, tmp_path):
    federation = build_from(shields, tmp_path, **sections)
    assert len(federation.parts.shields) == len(shields)
    assert ("advertise" in federation.parts.phases) == ("mask" in shields)


@pytest.mark.parametrize(
    ("library", "shields"), [("dp_accounting", NOISY), ("cryptography", MASKED)]
)
def test_a_missing_library_is_named_before_anything_is_paid(
    library, shields, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[privacy\]'"):
        build_from(shields, tmp_path)


def test_what_noise_leaves_out_and_an_empty_promise_are_said(tmp_path):
    def said(shields, **sections):
        config = config_of(shields, tmp_path, **sections)
        return notes(config, shields_of(config))

    (silenced,) = said(NOISY)
    assert "rounds.holdout = 0" in silenced
    assert said(NOISY, rounds={"holdout": 0.0}) == ()
    loose = {"clip": CLIP, "noise": {"multiplier": 0.5}}
    (empty,) = said(loose, rounds={"holdout": 0.0, "max": 1000})
    assert "next to nothing" in empty and "rounds.max = 1000" in empty
    assert said(CLIPPED) == said(MASKED) == said({}) == ()
