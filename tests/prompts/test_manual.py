"""The manual prompt: plain text at its only point."""

import numpy as np
import pytest

from fedbbpt.check import check_moves
from fedbbpt.errors import ConfigError, Incompatible
from fedbbpt.prompts.manual import Manual
from fedbbpt.types import RenderedPrompt


@pytest.mark.parametrize(("template", "side"), [("It was {label}.", "label"), ("{text} :", "text")])
def test_every_point_is_the_template(template, side):
    prompt = Manual(template, ["bad", "good"], side)
    rendered = prompt.render(np.zeros((3, *prompt.space.shape)))
    assert len(rendered) == 3
    for each in rendered:
        assert (each.template, each.labels, each.side) == (template, ("bad", "good"), side)
        assert each.kind == "text"
        assert each.keys == RenderedPrompt(template, ("bad", "good"), side).keys


@pytest.mark.parametrize("template", ["It was", "{text}", "{label} {label}"])
def test_a_template_without_its_gap_is_refused(template):
    with pytest.raises(ConfigError, match=r"must hold \{label\} once for side = 'label'"):
        Manual(template, ["bad", "good"])


def test_there_is_nothing_to_search():
    with pytest.raises(Incompatible) as caught:
        check_moves(Manual("It was {label}.", ["bad", "good"]))
    want = "manual prompts have nothing to search; set prompt.kind = 'soft' or 'tokens'"
    assert str(caught.value) == want
