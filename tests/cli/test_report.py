"""``fedbbpt report``: pages of finished, unfinished and odd runs, and of several side by side."""

import html
import json
import re

import pytest

from fedbbpt.report import pages
from fedbbpt.report.story import read_story


def text(path):
    """What a reader sees of a page."""
    whole = (path / "report.html" if path.is_dir() else path).read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>", "", whole, flags=re.S)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def test_a_run_leaves_a_page_with_its_numbers(kit, cli, finished):
    _, out = finished
    result, shown = kit.result(out), text(out)
    before, after = (result[which]["accuracy"] for which in ("baseline", "tuned"))
    assert f"{before:.3f}" in shown and f"{after:.3f}" in shown
    assert f"{result['test_examples']} test examples" in shown
    assert "It was {label} ." in shown and "Three clients" in shown
    for site in ("ash", "birch", "cedar"):
        assert site in shown
    assert f"{result['queries']['paid']:,}" in shown
    left = (out / "report.html").read_bytes()
    assert cli("report", out)[::2] == (0, "")
    assert (out / "report.html").read_bytes() == left


def test_no_example_is_in_the_page_and_nothing_is_fetched(kit, finished):
    _, out = finished
    whole = (out / "report.html").read_text(encoding="utf-8")
    for row in (*kit.rows(8), *kit.rows(4, "exam")):
        assert row[0] not in whole and html.escape(row[0]) not in whole
    assert not re.search(r"https?://|<script|<link|<iframe|@import|url\(", whole)
    assert not re.search(r'(src|href)="(?!data:)', whole)


def test_clients_gain_what_the_outcome_says(kit, finished):
    _, out = finished
    told = {e["client"]: e for e in kit.events(out, "evaluate")}
    story = read_story(out)
    assert sorted(one.client for one in story.fared) == sorted(told)
    assert [one.gain for one in story.fared] == sorted((o.gain for o in story.fared), reverse=True)
    for one in story.fared:
        scores = told[one.client]["scores"]
        assert (one.before, one.after) == (scores[0], scores[story.chosen])
        if story.chosen:
            assert one.ends[0] < one.gain < one.ends[1]


def test_what_left_is_what_the_phases_declare_with_the_bytes_of_the_events(kit, finished):
    _, out = finished
    declared = {e["phase"]: e["fields"] for e in kit.events(out, "declared")}
    assert declared["search"] == ["losses"]
    assert declared["select"] == ["losses", "squares", "answers", "labels"]
    events = kit.events(out, "client")
    shown = text(out)
    up = {e["bytes_up"] for e in events}
    assert len(up) == 1 and f"{up.pop()} bytes up" in shown
    assert re.search(rf"search .*? {len(events)} ", shown, flags=re.S)


def test_versions_and_the_config_are_in_the_page(finished):
    _, out = finished
    shown = text(out)
    made = json.loads((out / "state" / "run.json").read_text())
    for name, number in made["versions"].items():
        assert f"{name} {number}" in shown
    assert made["began"] in shown and made["data"]["train"] in shown
    assert (out / "config.toml").read_text().partition("[prompt]")[2].splitlines()[1] in shown


def test_an_unfinished_run_is_marked(cli, unfinished):
    _, out = unfinished
    assert cli("report", out)[::2] == (0, "")
    shown = text(out)
    assert "This run has not ended" in shown and "fedbbpt resume out" in shown
    assert "training loss" in shown and "test examples, read once" not in shown


def test_events_that_a_kill_cut_off_are_read_as_far_as_they_go(cli, finished):
    _, out = finished
    lines = (out / "events.jsonl").read_bytes().splitlines(keepends=True)
    (out / "events.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert len(read_story(out).events) == 5
    assert cli("report", out)[0] == 0


def test_a_directory_without_events_says_so(cli, finished):
    _, out = finished
    (out / "events.jsonl").unlink()
    assert cli("report", out)[::2] == (0, "")
    assert "has no events" in text(out)


def test_texts_of_users_are_only_text(kit, cli, tmp_path):
    evil = "<script>alert(1)</script>"
    sites = ("ash", "<b>birch</b>", "cedar")
    config = kit.write_config(
        tmp_path,
        {"prompt.template": "It <i>was</i> {label} .", "prompt.labels": {"bad": evil}},
        sites=sites,
    )
    out = tmp_path / "out"
    assert cli("run", config, "--out", out)[0] == 0
    whole = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in whole and "<b>birch" not in whole and "<i>was" not in whole
    assert html.escape(evil) in whole and "&lt;b&gt;birch&lt;/b&gt;" in whole


def test_an_address_shows_no_password(finished):
    _, out = finished
    config = out / "config.toml"
    told = 'ledger = "postgres://ada:secret@host/db"'
    config.write_text(config.read_text().replace('ledger = ""', told))
    pages.write(out)
    assert "secret" not in text(out) and "postgres://host/db" in text(out)


@pytest.mark.parametrize("method", ["manual", "local-only", "fedwords"])
def test_other_kinds_of_runs_have_a_page(kit, cli, tmp_path, method):
    config = kit.write_config(tmp_path, {"method.name": method})
    out = tmp_path / "out"
    assert cli("run", config, "--out", out)[0] == 0
    shown = text(out)
    wanted = {
        "manual": "A baseline tunes no prompt",
        "local-only": "Each client tuned its own",
        "fedwords": "tuned the words beside",
    }
    assert wanted[method] in shown and "Client by client" in shown


def test_a_page_that_cannot_be_written_costs_nothing_but_a_warning(kit, cli, tmp_path, monkeypatch):
    def broken(path):
        raise ValueError("no ink")

    monkeypatch.setattr("fedbbpt.closing.write", broken)
    config, out = kit.write_config(tmp_path), tmp_path / "out"
    code, said, _ = cli("run", config, "--out", out)
    assert code == 0 and (out / "result.json").is_file()
    assert "report.html could not be written (ValueError: no ink)" in " ".join(said.split())


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_no_run_is_refused(cli, refused, tmp_path, finished):
    config, out = finished
    refused("report", tmp_path / "nowhere", names=["there is no directory", "nowhere"])
    refused("report", config.parent, out=config.parent, names=["holds no run"])
    refused("report", out, "--out", "/dev/null/page.html", names=["/dev/null/page.html"])
    (out / "result.json").write_text('{"schema": 7}')
    refused("report", out, names=["schema 7", "reads 1"])
    (out / "config.toml").write_text("no = toml = at all")
    refused("report", out, names=["config.toml", "not valid TOML"])


# --- side by side --------------------------------------------------------------------------------


@pytest.fixture
def several(kit, cli, tmp_path):
    """Four runs: two seeds of two values of one option."""
    config, paths = kit.write_config(tmp_path), []
    for pairs in (3, 5):
        for seed in (0, 1):
            paths.append(tmp_path / f"p{pairs}s{seed}")
            more = ["--set", f"method.optimizer.pairs={pairs}", "--set", f"run.seed={seed}"]
            assert cli("run", config, "--out", paths[-1], *more)[0] == 0
    return paths


def test_runs_side_by_side_are_grouped_by_what_differs(kit, cli, several, tmp_path):
    page = tmp_path / "all.html"
    assert cli("report", *several, "--out", page)[::2] == (0, "")
    shown = text(page)
    assert "Four runs: two configs, two seeds." in shown
    for pairs, runs in ((3, several[:2]), (5, several[2:])):
        scores = [kit.result(run)["tuned"]["accuracy"] for run in runs]
        assert f"fedes, method.optimizer.pairs={pairs}" in shown
        assert f"{sum(scores) / 2:.3f}" in shown
    assert "paired over 2 seeds" in shown


def test_a_label_that_no_run_has_is_refused(refused, several):
    refused("report", *several, "--against", "fedes", names=["--against is 'fedes'", "pairs=3"])


def test_a_comparison_has_a_page_of_its_runs(kit, cli, tmp_path):
    config = kit.write_config(tmp_path, {"rounds.max": 2})
    with config.open("a") as file:
        file.write('\n[compare]\nseeds = 2\nmethods = ["manual", "fedes", "fedwords"]\n')
    out = tmp_path / "many"
    assert cli("compare", config, "--out", out)[0] == 0
    left = (out / "report.html").read_bytes()
    assert cli("report", out)[::2] == (0, "")
    assert (out / "report.html").read_bytes() == left
    shown = text(out)
    assert "Six runs: three configs, two seeds." in shown and "against manual" in shown
    (out / "rows.csv").unlink()  # as of one that was cut off
    assert cli("report", out, "--against", "fedes")[::2] == (0, "")
    assert "against fedes" in text(out)
