"""Charts stay within their frame, and what is written at lines can be read."""

import re
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.report.charts import APART, Curve, Scale, bar, chart, spread, ticks

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


@given(NUMBERS, st.floats(1e-2, 1e7), st.integers(2, 8))
def test_ticks_are_round_evenly_apart_and_few(low, width, most):
    found = ticks(low, low + width, most)
    assert 1 <= len(found) <= max(2, most)
    if len(found) > 2:
        steps = np.diff(found)
        assert np.allclose(steps, steps[0])
        mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0]))
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-3
    slack = 1e-6 * max(1.0, abs(low), width)
    assert low - slack <= min(found) and max(found) <= low + width + slack


def drawn(points, **more):
    return chart("loss", [Curve("", points)], "round", "It falls.", **more)


def places(made):
    """All numbers of all paths."""
    return [float(x) for d in re.findall(r' d="([^"]*)"', made) for x in re.findall(r"-?[\d.]+", d)]


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0, 1e3)), min_size=1, max_size=12),
    st.booleans(),
)
def test_everything_drawn_lies_within_the_frame(rows, steps):
    rows = sorted(rows)
    curve = Curve("a", [(x, y) for x, y, _ in rows], [half for _, _, half in rows])
    made = chart("loss", [curve], "round", "It falls.", steps=steps)
    found = places(made)
    assert found and "nan" not in made
    assert min(found) >= -0.01 and max(found) <= 100.01


def test_the_first_and_last_point_are_at_the_edges_and_up_is_more():
    made = drawn([(0, 1.0), (50, 3.0), (100, 2.0)])
    path = re.search(r'd="(M[^"]*L[^"]*)" class="tone t0"', made).group(1)
    points = [tuple(map(float, p.split())) for p in path[1:].split("L")]
    assert [x for x, _ in points] == [0, 50, 100]
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]  # per cent from the top


def test_stairs_turn_at_right_angles():
    made = drawn([(0, 1.0), (50, 3.0), (100, 2.0)], steps=True)
    path = re.search(r'd="(M[^"]*L[^"]*)" class="tone t0"', made).group(1)
    points = [tuple(map(float, p.split())) for p in path[1:].split("L")]
    assert len(points) == 5
    for (x, y), (to, height) in pairwise(points):
        assert x == to or y == height


def test_a_chart_without_points_is_none():
    assert chart("loss", [Curve("a", [])], "round", "Nothing.") == ""
    assert "nan" not in drawn([(0, 1.0)]) and "nan" not in drawn([(0, 0.0), (1, 0.0)])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=15))
def test_names_of_lines_never_cover_each_other(ends):
    curves = [Curve(f"m{i}", [(0, 0.5), (1, y)], tone=i) for i, y in enumerate(ends)]
    made = chart("accuracy", curves, "queries", "Some rise.")
    found = dict(
        (name, float(top))
        for top, name in re.findall(r'class="end e\d" style="top:([\d.]+)%">(m\d+)<', made)
    )
    assert len(found) == len(ends)
    order = sorted(found.values())
    assert min(np.diff(order)) >= APART - 0.02
    assert 0 <= order[0] and order[-1] <= 100
    by_height = sorted(range(len(ends)), key=lambda i: (-ends[i], i))
    for one, other in pairwise(by_height):
        if ends[one] - ends[other] > 1e-3:
            assert found[f"m{one}"] < found[f"m{other}"]


def test_what_cannot_be_seen_is_said():
    made = drawn([(0, 1.0), (1, 0.5)])
    assert 'role="img" aria-label="It falls."' in made
    assert "<title>gain 0.1</title>" in bar(0.1, Scale.over([0.1]), None, "gain 0.1")


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_zero_is_always_on_the_scale(values):
    scale = Scale.over(values)
    for value in (0.0, *values):
        assert -1e-9 <= scale.at(value) <= 100 + 1e-9


def test_an_interval_says_by_its_colour_on_which_side_it_is():
    for ends, kind in (((0.1, 0.3), "up"), ((-0.3, -0.1), "down"), ((-0.1, 0.3), "open")):
        assert f'class="range {kind}"' in spread(sum(ends) / 2, ends, "gain")
