"""Flower's programs as child processes that end with us.

Flower offers them as commands only. Each gets an environment in which nothing reaches out by
itself: no telemetry, no look for updates, no installation of what an app names.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedbbpt.errors import FedbbptError, MissingExtra

OWN = "flwr"
"""Folder of what Flower keeps for itself."""
SITE = "site"
"""What Flower's own config calls the server."""
GRACE = 15.0
"""Seconds that a child has to end by itself: it stops children of its own."""
ANSWER = 120.0
"""Seconds in which one of Flower's commands must answer; a busy machine takes five."""
START = 60.0
"""Seconds in which a server has to listen: a slow machine may need twenty."""


class ChildFailed(FedbbptError):
    """A program of Flower's ended that should not have."""


class Child:
    """A program that runs beside us, its output in a file.

    Args:
        command: name of a console script, with its arguments.
        home: where Flower keeps a folder of its own.
        log: where it writes.
        more: further variables of its environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        home: Path,
        log: Path,
        more: dict[str, str] | None = None,
    ) -> None:
        self.name, self.log = Path(command[0]).name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [_script(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**environment(home), **(more or {})},
                # Ctrl-C is for us: we end it in order.
                start_new_session=True,
                preexec_fn=_with_parent if sys.platform == "linux" else None,
            )

    def check(self) -> None:
        """ChildFailed if it has ended."""
        if self.process.poll() is not None:
            raise ChildFailed(
                f"{self.name} ended with code {self.process.returncode}: {last_line(self.log)} "
                f"(all it said is in {self.log})"
            )

    def stop(self) -> None:
        """End it and all that it has started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        # What it left behind is in its session.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()


class Tail:
    """What is added to a file of lines that another process writes.

    Args:
        path: it need not be there yet.
        offset: bytes to leave out.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset

    def more(self) -> list[str]:
        """Whole lines since the last time."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + bool(whole)
        return whole.decode().splitlines()


def environment(home: Path) -> dict[str, str]:
    """Ours, without anything that makes Flower reach out."""
    # Flower starts its other programs by name, also where nobody activated our environment.
    places = [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    return {
        **os.environ,
        "PATH": os.pathsep.join(places),
        "FLWR_HOME": str(home / OWN),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    }


def command(arguments: Sequence[str], home: Path) -> dict[str, Any]:
    """What a ``flwr`` command answers in JSON.

    Raises:
        ChildFailed: it failed, or said something else.
    """
    try:
        done = subprocess.run(
            [_script("flwr"), *arguments, "--format", "json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(home),
            timeout=ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"flwr {arguments[0]} said nothing within {ANSWER:g} s") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise ChildFailed(f"flwr {arguments[0]} said: {' '.join(said)[-400:]}") from None
    if not answer.get("success", True):
        raise ChildFailed(f"flwr {arguments[0]}: {answer.get('error-message', answer)}")
    return answer


def connection(home: Path, address: str, ca: Path | None) -> None:
    """Tell Flower's commands where the server is."""
    (home / OWN).mkdir(parents=True, exist_ok=True)
    trust = "insecure = true" if ca is None else f"root-certificates = {json.dumps(str(ca))}"
    (home / OWN / "config.toml").write_text(
        f'[superlink]\ndefault = "{SITE}"\n\n[superlink.{SITE}]\n'
        f"address = {json.dumps(address)}\n{trust}\n",
        encoding="utf-8",
    )


def app_folder(home: Path) -> Path:
    """The app as Flower wants it: a folder with a file that names our functions."""
    folder = home / "app"
    folder.mkdir(parents=True, exist_ok=True)
    source = files("fedbbpt.sites") / "fab" / "pyproject.toml"
    (folder / "pyproject.toml").write_text(source.read_text("utf-8"), encoding="utf-8")
    return folder


def listening(host: str, port: int, child: Child, seconds: float = START) -> None:
    """Wait until a child listens.

    Raises:
        ChildFailed: it ended, or does not.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        child.check()
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise ChildFailed(f"{child.name} does not listen on {host}:{port} after {seconds:g} s")


def last_line(log: Path) -> str:
    """The last thing that a program said."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][-300:] if said else "it said nothing"


def installed() -> None:
    """MissingExtra if Flower is not."""
    if not shutil.which("flower-superlink", path=sysconfig.get_path("scripts")):
        raise MissingExtra("flwr", "flower")


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def _with_parent() -> None:  # pragma: no cover  (in the child)
    # PR_SET_PDEATHSIG: a killed parent must not leave servers behind.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
