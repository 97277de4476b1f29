"""A federation over Flower, TLS and loopback is the run in one process, whatever is killed.

One federation of real processes has all faults, since Flower takes some seven seconds a round. Its
quorum is everybody: what was lost is asked for again, so the result is the whole one.
"""

import json
import os
import shutil
import signal
from collections import Counter
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

if find_spec("flwr") is None:
    pytest.skip("Flower is not installed: pip install 'fedbbpt[flower]'", allow_module_level=True)
if not Path("/proc/self/environ").exists():
    pytest.skip("without /proc no test can find its processes", allow_module_level=True)

NODES = ("ash", "birch", "cedar")
PAIR = 12  # atoms that are asked together: two candidates on six examples
SLOW = {"TOYBOX_SLEEP": "0.15"}  # seconds of a call, to be met at work
TAKING_PART = "joining"  # all that a node says before is the egress statement


def load_machines():
    path = Path(__file__).with_name("machines.py")
    spec = spec_from_file_location("machines", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


machines = load_machines()
kit, until = machines.kit, machines.until


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Rounds 0, 1 and 2 lose a client's process, the server and a node, each killed at work."""
    changes = {
        "engine.kind": "flower",
        "engine.nodes": 3,
        "engine.quorum": 1.0,
        "engine.deadline": 60.0,
        "rounds.max": 3,
    }
    f = machines.Federation(tmp_path_factory.mktemp("fünf Städte"), NODES, changes)
    try:
        yield SimpleNamespace(f=f, **told(f))
    finally:
        f.close()


def told(f):
    f.certs(*NODES, "stray")
    (f.folder / "certs/server/nodes/stray.pub").unlink()  # invited, and not known to the server
    f.certs("ash", out="others")
    # Nodes may be there long before the server.
    nodes = {"ash": f.node("ash", ELSEWHERE_AHEAD="-200")}
    nodes |= {name: f.node(name, **SLOW) for name in NODES[1:]}
    local = ("--set", "engine.kind=local", "--out", f.folder / "one")
    one = f.start("run", f.config, *local, log="one.log")
    killed = f.server()

    f.working("cedar", 0)
    for pid in f.processes("flwr-clientapp", name="cedar"):
        os.kill(pid, signal.SIGKILL)
    refused = strangers(f)

    f.working("birch", 1)
    # At once: else Flower's part of it would play on for some seconds.
    f.cut("server", killed)
    server = f.resume()

    f.working("birch", 2)
    nodes["birch"].kill()
    nodes["birch"] = f.node("birch", log="birch-again.log", **SLOW)

    ended = {"server": server.ended(150), "one": one.ended()}
    ended |= {name: node.ended() for name, node in nodes.items()}
    for node in refused.values():
        node.ended()
    left = f.left()
    return {"ended": ended, "refused": refused, "left": left, "server": server, "first": killed}


def strangers(f):
    """Nodes that cannot take part, started while the server is at work."""
    shutil.copy(f.folder / "ash.csv", f.folder / "stray.csv")

    def ash(what, *more, invitation=None, **env):
        log, home = f"ash-{what}.log", f.home(f"ash-{what}")
        return f.node("ash", *more, invitation=invitation, home=home, log=log, **env)

    return {
        "unknown": f.node("stray", "--wait", "2"),
        "twice": ash("twice", "--wait", "2"),
        "at home": f.node("ash", log="ash-at-home.log"),
        "other CA": ash("other", invitation="others/ash"),
        "plain": ash("plain", "--insecure"),
        "ahead": ash("ahead", ELSEWHERE_AHEAD="60"),
    }


REFUSED = {
    "unknown": (1, "does not let stray in", "does not know the key of this invitation"),
    "twice": (1, "does not let ash in", "the same key is in use elsewhere"),
    "at home": (2, "another fedbbpt node is at work in"),
    "other CA": (2, "not signed by others/ash/ca.crt", "another federation"),
    "plain": (2, "speaks TLS", "instead of --insecure"),
    "ahead": (2, "s ahead of", "Flower refuses", "set it right"),
}


def test_the_result_is_the_one_of_a_single_process(story):
    assert story.ended == dict.fromkeys(("server", "one", *NODES), 0), story.server.said
    here, there = story.f.folder / "one", story.f.out
    ours, theirs = dict(kit.losses(there)), dict(kit.losses(here))
    assert ours.keys() == theirs.keys() and len(ours) == 3 * len(NODES)
    assert ours == pytest.approx(theirs, abs=1e-5)
    one, many = kit.numbers(here), kit.numbers(there)
    for name in ("baseline", "tuned", "gain_interval"):
        assert many.pop(name) == pytest.approx(one.pop(name), abs=1e-5)
    # The ledger of the one is the ledgers of the others.
    assert many == one
    assert kit.prompt(there).keys() == kit.prompt(here).keys()


def test_what_was_killed_is_named_and_takes_part_again(story):
    # Flower notices first, or the round's deadline; on a slow machine others may be late as well.
    missed = ("lost", "late")
    lost = [e for e in story.f.events("node") if e["what"] in missed]
    assert {(e["client"], e.get("round")) for e in lost} >= {("cedar", 0), ("birch", 2)}
    # People at the server read it at once; the first server's lines ended with it.
    assert any(f"node      cedar {what}: " in story.first.said for what in missed)
    assert any(f"node      birch {what}: " in story.server.said for what in missed)
    for name in NODES:
        assert {e["round"] for e in story.f.events("client") if e["client"] == name} == {0, 1, 2}
        (joined, *_) = story.f.told(name, "joined")
        assert joined["why"] == "with 6 training examples"


@pytest.mark.parametrize("name", NODES)
def test_no_query_is_paid_twice(story, name):
    """But what was in flight when a process died; a ledger cannot know of it."""
    asked = Counter(story.f.asked(name))
    again = sum(asked.values()) - len(asked)
    assert len(asked) > 3 * 5 * PAIR
    assert max(asked.values()) <= 2 and again <= (0 if name == "ash" else PAIR)


@pytest.mark.parametrize("name", REFUSED)
def test_who_does_not_belong_is_refused_in_a_sentence(story, name):
    node, (code, *words) = story.refused[name], REFUSED[name]
    assert node.process.returncode == code, node.said
    assert node.last.startswith("fedbbpt: ") and all(word in node.last for word in words), node.last
    assert "Traceback" not in node.said and "sent " not in node.said.partition(TAKING_PART)[2]


@pytest.mark.parametrize("name", NODES)
def test_every_node_has_what_all_have_tuned(story, name):
    home = story.f.home(name)
    assert json.loads((home / "result.json").read_text()) == kit.result(story.f.out)
    assert kit.prompt(home) == kit.prompt(story.f.out)
    guess = story.f.start("predict", home, "--input", f"{name}.csv", log=f"{name}-guess.log")
    assert guess.ended() == 0, guess.said
    assert sum(word in guess.said for word in ("bad", "good")), guess.said


def test_a_node_keeps_a_log_of_what_left_it(story):
    lines = (story.f.home("ash") / "egress.jsonl").read_text().splitlines()
    sent = [(line["phase"], line["round"]) for line in map(json.loads, lines)]
    # What a second server asks for again leaves as the same bytes, and is one entry.
    assert sent[:-2] == [("card", 0), ("setup", 0), ("search", 0), ("search", 1), ("search", 2)]
    assert [phase for phase, _ in sent[-2:]] == ["select", "bye"]


def test_no_process_is_left(story):
    assert story.left == []
