"""Who cannot take part is told in a sentence, by a server or before anything is sent."""

import json
import signal
import socket
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

if find_spec("flwr") is None:
    pytest.skip("Flower is not installed: pip install 'fedbbpt[flower]'", allow_module_level=True)
if not Path("/proc/self/environ").exists():
    pytest.skip("without /proc no test can find its processes", allow_module_level=True)

from fedbbpt.cli.main import main
from fedbbpt.config import read
from fedbbpt.sites import invitation
from fedbbpt.sites.certs import ensure

NODES = ("ash", "birch", "cedar", "date")


def load_machines():
    path = Path(__file__).with_name("machines.py")
    spec = spec_from_file_location("machines", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


machines = load_machines()
kit, until = machines.kit, machines.until


# --- a server without keys -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Two nodes fit, of which one loses its power in the first round; the rest is stopped."""
    changes = {"engine.kind": "flower", "engine.deadline": 12.0, "rounds.max": 9}
    folder = tmp_path_factory.mktemp("insecure")
    f = machines.Federation(folder, NODES, changes, secure=False)
    try:
        yield SimpleNamespace(f=f, **told(f))
    finally:
        f.close()


def told(f):
    f.certs()
    changed = f.config.read_text().replace("holdout = 0.25", "holdout = 0.5")
    (f.folder / "changed.toml").write_text(changed)
    f.certs("date", config="changed.toml", out="others")
    server = f.server("--set", "engine.nodes=4")
    nodes = {
        "ash": f.node("ash"),
        "birch": f.node("birch", TOYBOX_SLEEP="0.3"),
        "cedar": f.node("cedar", ELSEWHERE_VERSION="9.9.9"),
        "date": f.node("date", invitation="others/date"),
    }
    f.working("birch", 0)
    f.cut("birch", nodes["birch"])
    until(lambda: f.merged(0), "round 0", 90)
    for name in NODES[2:]:
        nodes[name].ended()
    nodes["ash"].process.terminate()
    nodes["ash"].ended()
    left = f.left("ash")
    server.process.send_signal(signal.SIGINT)
    server.ended()
    return {"nodes": nodes, "server": server, "left": [*left, *f.left()]}


def test_without_keys_nodes_find_each_other_and_are_warned(story):
    assert "warning   --insecure: plain text" in story.server.said
    for name in NODES[:2]:
        (joined,) = story.f.told(name, "joined")
        assert f"node      {name} joined: {joined['why']}\n" in story.server.said


def test_a_node_without_power_is_not_waited_for_beyond_the_deadline(story):
    """Flower itself takes it for present for a minute."""
    (late,) = [e for e in story.f.events("node") if e["client"] == "birch" and "round" in e]
    assert late["what"] == "late" and late["why"] == "no answer within 12 s" and late["round"] == 0
    merge = story.f.events("merge")[0]
    assert merge["clients"] == 1 and merge["seconds"] < 30


def test_two_versions_are_both_named_at_both_ends(story):
    ours = machines.version()
    said = f"the server runs fedbbpt {ours} and node cedar runs 9.9.9; install the same version"
    refused(story, "cedar", said)


def test_the_key_of_a_config_that_differs_is_named(story):
    refused(story, "date", "node date was invited with another config: rounds.holdout differs")


def refused(story, name, said):
    node = story.nodes[name]
    assert node.process.returncode == 2 and node.last.startswith(f"fedbbpt: {said}"), node.said
    (event,) = story.f.told(name, "refused")
    assert event["why"].startswith(said)
    assert f"node      {name} refused: {said}" in story.server.said
    assert not story.f.asked(name) and not story.f.told(name, "joined")


def test_a_node_that_is_stopped_says_so_and_leaves_nothing(story):
    node = story.nodes["ash"]
    assert node.process.returncode == 130 and "Traceback" not in node.said
    assert node.last == "ash has left; the same command joins again"


def test_a_server_that_is_stopped_says_how_to_go_on(story):
    assert story.server.process.returncode == 130 and "Traceback" not in story.server.said
    assert story.server.last == f"fedbbpt: interrupted; go on with: fedbbpt resume {story.f.out}"
    assert story.left == []


# --- before anything is sent ---------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A node's invitation and examples, and an address that notes who comes."""
    config = kit.write_config(tmp_path, {"data.classes": ["bad", "good"]})
    ensure(tmp_path / "certs", ["ash"])
    invitation.write(tmp_path / "certs/ash", invitation.invitation(read(config)))
    data = tmp_path / "ash.csv"
    kit.write_table(data, [row[:2] for row in kit.rows(8, sites=["ash"])], ("text", "label"))
    monkeypatch.syspath_prepend(str(kit.BOXES))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        address = f"127.0.0.1:{door.getsockname()[1]}"
        yield SimpleNamespace(folder=tmp_path, config=config, data=data, address=address, door=door)


@pytest.fixture
def call(place, monkeypatch, capsys):
    """A command in this process: (exit code, stdout, stderr); nobody came to the address."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fedbbpt", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        with pytest.raises(BlockingIOError):
            place.door.accept()
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def node(place, *more):
    return ("node", "certs/ash", "--data", place.data, "--server", place.address, *more)


def sentence(answer, *names):
    code, out, said = answer
    assert code == 2 and "is joining" not in out, out
    assert said.startswith("fedbbpt: ") and said.count("\n") == 1, said
    assert all(str(name) in said for name in names), said


def test_a_label_that_the_federation_does_not_know(place, call):
    place.data.write_text(place.data.read_text() + "ash note 9,odd\n")
    sentence(call(*node(place)), "odd", "bad", "good")


def test_a_model_that_cannot_serve_the_prompt(place, call):
    sentence(call(*node(place, "--box", "answer=toybox:mute")), "soft", "vocabulary")


@pytest.mark.parametrize("host", ["192.0.2.7", "fed.example.org", "0.0.0.0"])
def test_plain_text_to_another_machine(place, call, host):
    more = ("--server", f"{host}:8000", "--insecure")
    sentence(call(*node(place), *more), "--insecure", host)
    sentence(call("server", place.config, "--address", f"{host}:8000", "--insecure"), host)


def test_an_address_where_nothing_listens(place, call):
    port = machines.free_port()
    code, _, said = call(*node(place), "--server", f"127.0.0.1:{port}", "--wait", "0.3")
    assert code == 2 and f"nothing listens at 127.0.0.1:{port}" in said


def test_a_certificate_that_has_ended(place, call):
    ensure(place.folder / "old", ["ash"], days=3, now=datetime.now(UTC) - timedelta(days=9))
    (place.folder / "certs/ash/ca.crt").write_bytes((place.folder / "old/ca.crt").read_bytes())
    code, _, said = call(*node(place))
    assert code == 2 and "ended on" in said and "here says" in said


@pytest.mark.parametrize("content", ["ended", "nothing"])
def test_a_certificate_with_which_no_server_should_start(place, call, content):
    then = datetime.now(UTC) - timedelta(days=9)
    ensure(place.folder / "old", ["ash"], days=60, now=then)
    file = place.folder / "old/server/server.crt"
    file.unlink()
    ensure(place.folder / "old", [], days=3, now=then)
    if content == "nothing":
        file.write_text("nothing")
    words = ("server", place.config, "--certs", "old", "--address", place.address)
    sentence(call(*words), file, "ended on" if content == "ended" else "holds no certificate")


def test_a_port_that_is_taken(place, call):
    """The door of the fixture is on it."""
    sentence(
        call("server", place.config, "--certs", "certs", "--address", place.address),
        f"{place.address} is taken by another program",
    )
    assert not (place.folder / "runs").exists()


def test_a_home_of_another_node(place, call):
    home = place.folder / "home"
    home.mkdir()
    (home / "node.json").write_text(json.dumps({"name": "birch"}))
    sentence(call(*node(place, "--home", home)), "the home of node birch, not of ash")


def test_a_rehearsal_writes_the_update_and_sends_nothing(place, call):
    code, out, _ = call(*node(place), "--dry-run")
    update = place.folder / "nodes/ash/rehearsal"
    size = sum(file.stat().st_size for file in update.iterdir())
    assert code == 0 and f"({size} bytes); nothing was sent" in out
    assert json.loads((update / "head").read_text())["client"] == "ash"
    assert not (place.folder / "nodes/ash/egress.jsonl").exists()
