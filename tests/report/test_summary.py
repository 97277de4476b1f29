"""The table of a comparison, against numpy and scipy by hand."""

import numpy as np
import pytest
from scipy import stats

from fedbbpt.report.summary import HEADER, cells, lines, markdown, mean_curve, reaches, remarks

SCORES = {
    "manual": [0.70, 0.72, 0.71],
    "fedes": [0.80, 0.79, 0.85],
    "local-only": [0.75, 0.70, 0.74],
    "white-box": [0.81, 0.82, 0.83],
}
CURVED = ("fedes", "fedwords")


def row(method, seed, score=None, note="", **more):
    made = {
        "data": "sst2",
        "setting": "",
        "method": method,
        "budget": 4000,
        "seed": seed,
        "note": note,
        "curve": [],
    }
    if score is not None:
        made |= {"metric": "accuracy", "score": score, "start": 0.7, "seconds": 2.5}
        made |= {"gain_low": score - 0.8, "gain_high": score - 0.7}
        made |= {"train_queries": 3990 + seed, "bytes_up": 40.0, "bytes_down": 800.4}
        if method in CURVED:
            made["curve"] = [(0, 0.7), (2000 + 10 * seed, score)]
    return made | more


def rows(scores=SCORES, **more):
    return [
        row(method, seed, score, **more)
        for seed in range(3)
        for method, each in scores.items()
        for score in each[seed : seed + 1]
    ]


def by_method(found):
    return {line.method: line for line in found}


def test_a_line_is_mean_interval_and_paired_test():
    line = by_method(lines(rows(), "manual"))["fedes"]
    one, other = np.array(SCORES["fedes"]), np.array(SCORES["manual"])
    half = stats.t.ppf(0.975, 2) * one.std(ddof=1) / np.sqrt(3)
    assert (line.score, line.half) == pytest.approx((one.mean(), half))
    assert line.change == pytest.approx((one - other).mean())
    assert line.p == pytest.approx(stats.ttest_rel(one, other).pvalue)
    shown = dict(zip(HEADER, cells(line), strict=True))
    assert shown == {
        "method": "fedes",
        "score ± 95 %": f"{one.mean():.3f} ± {half:.3f}",
        "against {}": f"+{(one - other).mean():.3f}",
        "p": f"{line.p:.3f}",
        "worse than start": "0 of 3",
        "train queries": "3991",
        "bytes up / down": "40 / 800",
        "seconds": "2.5",
    }


def test_pairs_are_seeds_that_both_have():
    scores = SCORES | {"fedes": [0.80, 0.79]}
    made = [*rows(scores), row("fedes", 2, note="needs 9000")]
    line = by_method(lines(made, "manual"))["fedes"]
    assert line.change == pytest.approx((0.10 + 0.07) / 2)
    assert line.p == pytest.approx(stats.ttest_rel([0.80, 0.79], [0.70, 0.72]).pvalue)
    assert cells(line)[1].endswith("(2 of 3 seeds; needs 9000)")


def test_one_seed_has_neither_interval_nor_test():
    found = by_method(lines([row("manual", 0, 0.7), row("fedes", 0, 0.8)], "manual"))
    assert cells(found["fedes"])[1:4] == ["0.800", "+0.100", ""]
    assert cells(found["manual"])[1:4] == ["0.700", "", ""]


def test_what_could_not_be_run():
    found = lines(
        [row("manual", 0, 0.7), row("dear", 0, note="needs 9000"), row("odd", 0, note="No [fit].")],
        "manual",
    )
    shown = {line.method: cells(line)[1] for line in found}
    assert shown == {"manual": "0.700", "dear": "-, needs 9000", "odd": "-"}
    assert remarks(found) == ["odd: No [fit]."]


def test_lines_are_grouped_in_order_of_appearance():
    places = [(s, b) for s in ("alpha=1", "alpha=0.1") for b in (16000, 4000)]
    made = [
        row(method, seed, 0.5, setting=setting, budget=budget)
        for setting, budget in places
        for seed in (1, 0)
        for method in ("fedes", "adam")
    ]
    found = [(line.setting, line.budget, line.method) for line in lines(made, "fedes")]
    assert found == [
        (setting, budget, method)
        for setting in ("alpha=1", "alpha=0.1")
        for budget in (4000, 16000)
        for method in ("fedes", "adam")
    ]
    # Each is held against the baseline in its own place.
    assert {line.change for line in lines(made, "fedes") if line.method == "adam"} == {0.0}


def test_worse_than_the_start_counts_sure_losses_only():
    scores = {"fedes": [0.60, 0.69, 0.75]}
    assert cells(lines(rows(scores), "fedes")[0])[4] == "2 of 3"
    undefined = [row("fedes", 0, 0.6, gain_high=None)]
    assert cells(lines(undefined, "fedes")[0])[4] == "0 of 1"


# --- curves --------------------------------------------------------------------------------------


def test_the_mean_of_staircases():
    curves = [[(0, 0.5), (10, 0.7), (30, 0.9)], [(0, 0.6), (20, 0.8)]]
    found = mean_curve(curves)
    assert [(q, round(mean, 6)) for q, mean, _ in found] == [
        (0, 0.55),
        (10, 0.65),
        (20, 0.75),
        (30, 0.85),
    ]
    half = stats.t.ppf(0.975, 1) * np.std([0.7, 0.6], ddof=1) / np.sqrt(2)
    assert found[1][2] == pytest.approx(half)


def test_a_mean_needs_all_curves():
    assert [q for q, *_ in mean_curve([[(0, 0.5), (9, 0.6)], [(4, 0.6)]])] == [4, 9]
    assert mean_curve([[], []]) == []
    assert [q for q, *_ in mean_curve([[(0, 0.5)], [(0, None)], []])] == [0]


def test_when_a_level_is_reached():
    line = by_method(lines(rows(), "manual"))["fedes"]
    assert reaches(line, 0.81) == 2020  # the last seed's snapshot
    assert reaches(line, 0.9) is None
    assert reaches(line, 0.6) == 2000  # the start reaches it with no query


# --- remarks -------------------------------------------------------------------------------------


def test_federation_against_everyone_alone():
    assert "sst2 at 4000: federation helps (fedes +0.083 against local-only)" in remarks(
        lines(rows(), "manual")
    )
    apart = rows(SCORES | {"local-only": [0.9, 0.9, 0.9]}, setting="partition.alpha=0.03")
    said = remarks(lines(apart, "manual"))
    where = "sst2, partition.alpha=0.03 at 4000"
    assert f"{where}: federation stops helping (fedes -0.087 against local-only)" in said


def test_the_price_of_black_box_access():
    said = remarks(lines(rows(), "manual"))[1]
    assert "white-box minus the best black-box method (fedes) is +0.007" in said
    assert said.endswith("no search reached it")
    better = rows(SCORES | {"white-box": [0.75, 0.75, 0.75]})
    said = remarks(lines(better, "manual"))[1]
    assert "is -0.063" in said and said.endswith("fedes reached it after 2010 queries")


def test_no_rival_no_remark():
    alone = {name: SCORES[name] for name in ("manual", "local-only", "white-box")}
    assert remarks(lines(rows(alone), "manual")) == []


def test_markdown_has_all_of_it():
    text = markdown(lines([*rows(), row("odd", 0, note="It does not fit.")], "manual"), "manual")
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(line) for line in table} == {len(HEADER)} and len(table) == 2 + 5
    assert table[0][2].strip() == "against manual"
    assert text.startswith("### sst2, 4000 queries, seeds 0, 1, 2\n")
    assert "- odd: It does not fit." in text
