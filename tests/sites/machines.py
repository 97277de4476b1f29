"""A federation of real processes on this machine: our commands, and Flower's behind them.

Loaded by path, since pytest imports in importlib mode. Every process inherits a mark in its
environment, by which those of a test are found, whoever started them, and ended by their ids.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from importlib.metadata import version as installed
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

MARK = "FEDBBPT_TEST_MARK"
ELSEWHERE = Path(__file__).parent / "elsewhere"


def load_kit():
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


def version():
    return installed("fedbbpt")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def until(true, what, seconds=60.0):
    """The first value of ``true()`` that counts as one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Program:
    """One of our commands, with all it says in a file."""

    def __init__(self, arguments, log, env, folder):
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                kit.command(*arguments), stdout=file, stderr=file, env=env, cwd=folder
            )

    @property
    def said(self):
        return self.log.read_text(encoding="utf-8")

    @property
    def last(self):
        """The last line it said."""
        return self.said.strip().splitlines()[-1]

    def ended(self, seconds=60.0):
        """Its exit code."""
        return self.process.wait(seconds)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Federation:
    """Keys, files and processes below a folder.

    Args:
        folder: of all of it.
        nodes: names.
        changes: over the toy config, with dotted keys.
        secure: with TLS and keys.
    """

    def __init__(self, folder, nodes, changes=None, secure=True):
        self.folder, self.nodes, self.secure = folder, nodes, secure
        self.mark = uuid.uuid4().hex
        self.address = f"127.0.0.1:{free_port()}"
        own = {"data.classes": ["bad", "good"], "rounds.max": 3, **(changes or {})}
        self.config = kit.write_config(folder, own, sites=nodes)
        for name in nodes:
            mine = [row[:2] for row in kit.rows(8, "note", sites=[name])]
            kit.write_table(folder / f"{name}.csv", mine, ("text", "label"))
        self.programs = []

    @property
    def out(self):
        return self.folder / "out"

    def home(self, name):
        return self.out / "flower" if name == "server" else self.folder / "nodes" / name

    def cut(self, name, program):
        """End one of our commands and all that it started at once, as a power cut does."""
        for pid in [program.process.pid, *self.processes(name=name)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself, its parent being gone
        program.ended()

    def certs(self, *nodes, config=None, out="certs"):
        asked = [word for name in nodes or self.nodes for word in ("--nodes", name)]
        config = config or self.config
        program = self.start("certs", config, *asked, "--out", out, log=f"{out}.log")
        assert program.ended() == 0, program.said

    def start(self, *arguments, log, **more):
        # As where nobody activated the environment that we are in.
        env = kit.environment(**{MARK: self.mark, "PATH": os.defpath, **more})
        program = Program(arguments, self.folder / log, env, self.folder)
        self.programs.append(program)
        return program

    def server(self, *more, **env):
        trust = ("--certs", "certs") if self.secure else ("--insecure",)
        asked = (self.config, *trust, "--address", self.address, "--out", self.out, *more)
        return self.start("server", *asked, log="server.log", **env)

    def resume(self):
        return self.start("resume", self.out, log="resume.log")

    def node(self, name, *more, log="", invitation=None, home=None, **env):
        trust = () if self.secure else ("--insecure",)
        invited = invitation or Path("certs") / name
        asked = (invited, "--data", f"{name}.csv", "--server", self.address, *trust)
        place = ("--home", home or self.home(name))
        env.setdefault("TOYBOX_LOG", str(self.folder / f"{name}.asked"))
        if any(word.startswith("ELSEWHERE") for word in env):
            env["PYTHONPATH"] = os.pathsep.join([str(ELSEWHERE), str(kit.BOXES)])
        return self.start("node", *asked, *place, *more, log=log or f"{name}.log", **env)

    def merged(self, number):
        """Whether a round is over."""
        return any(event["round"] == number for event in self.events("merge"))

    def working(self, name, number):
        """Wait until a node's model is asked in a round that has begun."""
        if number:
            until(lambda: self.merged(number - 1), f"round {number - 1}", 120)
        before = len(self.asked(name)) if number else 0
        # Its process is in the middle: a round is ten calls.
        until(lambda: len(self.asked(name)) > before + 6, f"{name} in round {number}", 90)

    # --- what happened ---------------------------------------------------------------------------

    def events(self, *kinds):
        """Those that are in the books already."""
        file = self.out / "events.jsonl"
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0] if file.exists() else ""
        found = [json.loads(line) for line in whole.splitlines()]
        return [event for event in found if not kinds or event["event"] in kinds]

    def told(self, client, what):
        """What the books say of a node."""
        return [e for e in self.events("node") if (e["client"], e["what"]) == (client, what)]

    def asked(self, name):
        """Atoms that a node's model was asked, in order."""
        file = self.folder / f"{name}.asked"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def processes(self, *words, name=""):
        """Living processes of this federation whose command has all these words, by id.

        Args:
            words: to look for.
            name: of the node whose children they are, or "server"; empty for any.
        """
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                environ = (place / "environ").read_bytes()
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f"{MARK}={self.mark}".encode() not in environ:
                continue
            mine = not name or f"{self.home(name)}/".encode() in environ
            if mine and all(word in command for word in words):
                found[int(place.name)] = command
        return found

    def left(self, name=""):
        """Those that are still there when all should have ended, after a moment."""
        end = time.monotonic() + 15
        while (found := self.processes(name=name)) and time.monotonic() < end:
            time.sleep(0.1)
        return list(found.values())

    def close(self):
        """End all that is left, by its id."""
        for program in self.programs:
            if program.process.poll() is None:
                program.kill()
        end = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < end:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)
        assert not left
