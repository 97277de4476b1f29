"""`fedbbpt demo instructions` as a newcomer runs it, and what one can do with what it leaves."""

import json
import re
import time
from importlib.resources import files

import pytest

from fedbbpt.finished import open_run

LIMIT = 60.0  # it takes 5 to 8 s
YOURS = "Write the word for more than one."
SCHOOLS = ("Abbey Road", "Birchwood", "Castle Hill", "Docklands", "Elm Park")


@pytest.fixture(scope="module")
def demo(kit, tmp_path_factory):
    """What a run of it printed, and its directory."""
    out = tmp_path_factory.mktemp("demo") / 'an [odd] "name"'
    began = time.monotonic()
    code, shown, said = kit.spawn("demo", "instructions", "--out", out, OMP_NUM_THREADS="1")
    assert (code, said) == (0, "") and time.monotonic() - began < LIMIT
    return out, shown


def test_it_says_what_is_real_and_what_is_not(demo):
    _, shown = demo
    told = " ".join(shown.split())
    for part in (
        "Five fictional language schools",
        "hold 80 private exercise cards",
        f'Today they say: "{YOURS}"',
        "what quotes a card does not leave the school",
        "The model is simulated: plain functions behind a chat API",
        "what a real model makes of an instruction is another question",
        "http://127.0.0.1:",
        *SCHOOLS,
    ):
        assert part in told, part


def test_it_finds_better_words_and_says_what_they_cost(kit, demo):
    out, shown = demo
    result = kit.result(out)
    before, after = result["baseline"]["exact"], result["tuned"]["exact"]
    assert f"exact  {before:.3f} → {after:.3f}" in shown and "is better than" in shown
    assert before < 0.6 < 0.9 < after and result["gain_interval"][0] > 0.2
    assert (result["clients"], result["test_examples"]) == (5, 60)
    queries = result["queries"]
    assert 100 < queries["train"] <= queries["budget"] == 1000
    assert (
        f"{queries['train']} of 1000 for training" in shown and f"{queries['paid']} paid" in shown
    )
    assert re.search(rf"requests  {queries['paid']} sent, 0 failed.*\$0\.\d+", shown)


def test_it_prints_the_chosen_the_own_and_the_top_five(demo):
    out, shown = demo
    table = json.loads((out / "prompt" / "candidates.json").read_text())["candidates"]
    (chosen,) = [one["instruction"] for one in table if one["chosen"]]
    assert f"chosen    {chosen}\nyours     {YOURS}\n" in shown
    tried = [one for one in table if one["loss"] is not None]
    assert f"pool      {len(table)} instructions, {len(tried)} of them tried" in shown
    lines = re.findall(r"^ {10}(\d\.\d\d) ± \d\.\d\d  (.*)  \((.*)\)$", shown, re.MULTILINE)
    top = [(one["instruction"], one["author"]) for one in table[:5]]
    assert [(text, author) for _, text, author in lines] == top
    losses = [float(loss) for loss, _, _ in lines]
    assert losses == sorted(losses) and {author for _, author in top} <= {*SCHOOLS}


def test_no_card_is_in_the_pool_or_told(kit, demo):
    out, _ = demo
    cards = (files("fedbbpt.data") / "exercises" / "cards.train.csv").read_text().splitlines()[1:]
    assert len(cards) == 80
    pool = (out / "prompt" / "candidates.json").read_text()
    blocked = sum(event["refused"].get("leak", 0) for event in kit.events(out, "proposed"))
    assert blocked > 0 and "If the input is" not in pool


def test_resuming_it_without_the_server_changes_nothing(kit, demo):
    out, _ = demo
    first = kit.numbers(out)
    code, shown, said = kit.spawn("resume", out, OMP_NUM_THREADS="1")
    assert (code, said) == (0, "") and "chosen    " in shown
    assert kit.numbers(out) == first


def test_what_it_tuned_can_be_opened(demo):
    out, shown = demo
    (chosen,) = re.findall(r"^chosen    (.*)$", shown, re.MULTILINE)
    prompt = open_run(out).prompt
    assert prompt.template == f"{chosen}\n\nInput: {{text}}\nOutput:" and prompt.labels == ()
    assert json.loads((out / "prompt" / "prompt.json").read_text())["text"] == [chosen]


def test_an_old_run_is_not_touched(refused, kit, demo):
    out, _ = demo
    refused("demo", "instructions", "--out", out, names=["finished run", "--overwrite"], out=out)


def test_help_names_it(cli):
    code, said, _ = cli("demo", "--help")
    assert code == 0 and "tickets|vision|instructions" in said
