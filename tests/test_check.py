"""Parts that do not fit are refused in one sentence, from what they declare."""

from dataclasses import replace

import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.cma import Cma
from fedbbpt.aggregators.krum import Krum
from fedbbpt.aggregators.mean import Mean
from fedbbpt.baselines import Baseline
from fedbbpt.check import check, check_baseline, check_clients, check_prompt
from fedbbpt.errors import Incompatible
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.prompts.soft import Soft
from fedbbpt.prompts.tokens import Tokens
from fedbbpt.testing.engines import toy_federation
from fedbbpt.testing.toys import ToyEncoder, toy_box

PARTS = toy_federation().parts


def sentence(judge, *parts):
    """What a check that must fail says."""
    with pytest.raises(Incompatible) as caught:
        judge(*parts)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def refused(parts=PARTS, box=None, steps=1):
    return sentence(check, parts, box or toy_box(), steps)


def spoilt(**attributes):
    box = toy_box()
    for name, value in attributes.items():
        setattr(box, name, value)
    return box


@pytest.mark.parametrize("optimizer", [Es(), Cmaes(), Cmaes(covariance="full")])
@pytest.mark.parametrize("aggregator", [Mean(), Adam()])
def test_parts_that_fit(optimizer, aggregator):
    check(replace(PARTS, optimizer=optimizer, aggregator=aggregator), toy_box(), 8)


def test_fedbpt_fits():
    check(replace(PARTS, optimizer=Cmaes(), aggregator=Cma()), toy_box(), 8)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            spoilt(accepts=frozenset({"text"}), name="chat"),
            "soft prompts send soft, but chat accepts only text; "
            "take prompt.kind = 'tokens', which are words",
        ),
        (
            spoilt(sides=frozenset({"text"}), name="masked"),
            "prompt.side is 'label', but masked takes prompts only on: text",
        ),
        (
            spoilt(vocabulary=None, name="mine"),
            "soft prompts need the box's vocabulary, and mine has none",
        ),
    ],
)
def test_a_prompt_that_the_box_does_not_take(box, message):
    assert sentence(check_prompt, "soft", Soft, box, "label") == message
    check_prompt("soft", Soft, toy_box(), "label")


def test_discrete_prompts_are_text_where_the_box_takes_no_tokens():
    check_prompt("tokens", Tokens, spoilt(accepts=frozenset({"text"}), vocabulary=None), "label")
    soft = spoilt(accepts=frozenset({"soft"}), name="mine")
    said = sentence(check_prompt, "tokens", Tokens, soft, "label")
    assert said == "tokens prompts send tokens, but mine accepts only soft"


def test_a_text_prompt_needs_no_vocabulary():
    class Plain(Soft):
        sends = frozenset({"text"})

    check_prompt("plain", Plain, spoilt(vocabulary=None), "label")


def test_a_baseline_that_needs_more_than_the_box_gives():
    class Probe(Baseline):
        needs = frozenset({"embeddings"})
        phases = ()

        def fit(self, federation):
            raise NotImplementedError

    check_baseline("linear_probe", Probe(), ToyEncoder())
    message = sentence(check_baseline, "linear_probe", Probe(), toy_box())
    assert message == "linear_probe needs embeddings, but function:toy gives only scores"


def test_a_box_without_scores():
    box = spoilt(gives=frozenset({"text"}), name="writer")
    assert refused(box=box) == "writer gives text; this task needs scores"


def test_a_space_that_the_optimiser_cannot_search():
    class Discrete(Es):
        spaces = frozenset({"simplex"})

    message = refused(replace(PARTS, optimizer=Discrete()))
    assert message == "discrete searches simplex spaces, but soft prompts need a real one"


def test_an_aggregator_that_misses_a_field():
    message = refused(replace(PARTS, optimizer=Es(), aggregator=Cma()))
    assert message == (
        "cma cannot merge the states of es: its state has no cov, popsize, sigma, sigma_sq"
    )


def test_a_state_that_has_no_mean():
    class Bayes(Es):
        averages = ()

    message = refused(replace(PARTS, optimizer=Bayes(), aggregator=Mean()))
    assert message == "mean cannot merge the states of bayes: its state has no mean"


def test_a_merge_that_reads_what_is_not_there():
    class Reads(Mean):
        reads = ("mood",)

    assert "mood" in refused(replace(PARTS, aggregator=Reads()))


def test_shared_directions_and_many_steps():
    parts = replace(PARTS, directions="shared")
    check(parts, toy_box(), 1)
    assert "rounds.steps is 2, but shared directions allow one step" in refused(parts, steps=2)


@pytest.mark.parametrize("aggregator", [Krum(bad=2), Adam(robust="krum", bad=2)])
def test_a_merge_of_more_clients_than_there_are(aggregator):
    check_clients(aggregator, 7)
    name = type(aggregator).__name__.lower()
    assert sentence(check_clients, aggregator, 6) == (
        f"{name} needs 7 clients in every round, and only 6 take part in one; "
        "take a merge for fewer, such as 'median'"
    )
