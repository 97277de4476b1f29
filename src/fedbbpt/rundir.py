"""The run directory: who may use it, and what is in it."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedbbpt.config import Config
from fedbbpt.errors import DataError, RunDirError
from fedbbpt.provenance import provenance
from fedbbpt.record import write_json
from fedbbpt.sharing import sources

LEDGER, RESULT, CONFIG = "ledger.sqlite", "result.json", "config.toml"
EVENTS, CHARGES, MARK = "events.jsonl", "charges.jsonl", "run.json"
CANDIDATES = "candidates.json"
"""In the folder of the prompt: the instructions it was chosen from, the best first."""
CLIENTS = "clients"
"""Folder of the clients' own run directories, where each works for itself."""


FLOWER = "flower"
"""Folder of what Flower keeps for a run over many machines."""


@dataclass(frozen=True)
class RunDir:
    """One run's directory.

    Attributes:
        path: the directory.
        run: the run's name in its ledger.
    """

    path: Path
    run: str

    @property
    def state(self) -> Path:
        """Folder of the checkpoint."""
        return self.path / "state"

    @property
    def prompt(self) -> Path:
        """Folder of the tuned prompt."""
        return self.path / "prompt"

    @property
    def pictures(self) -> Path:
        """Folder of what a visual prompt looks like; private images."""
        return self.path / "pictures"


def ledger_path(path: Path, config: Config) -> Path:
    """The ledger that the config names, else the one in the run directory ``path``."""
    return Path(config.run.ledger) if config.run.ledger else path / LEDGER


def refuse_unless_free(path: Path, overwrite: bool) -> None:
    """Check that a new run may use this directory; touches nothing.

    Raises:
        RunDirError: it holds a run (unless ``overwrite``) or something else.
    """
    if path.exists() and not path.is_dir():
        raise RunDirError(f"{path} is a file; --out must name a directory")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if {entry.name for entry in path.iterdir()} <= {"state", FLOWER}:
        return  # a run that was killed before it began
    if not (path / "state" / MARK).is_file():
        raise RunDirError(f"{path} is not empty and holds no run; choose another --out")
    if overwrite:
        return
    if (path / RESULT).is_file():
        raise RunDirError(f"{path} holds a finished run; use --overwrite or another --out")
    raise RunDirError(f"{path} holds an unfinished run; use: fedbbpt resume {path}")


def create(path: Path, config: Config) -> RunDir:
    """A fresh run directory. Of an old run only its ledger stays: those queries are paid."""
    directory = RunDir(path, secrets.token_hex(8))
    try:
        directory.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(
            f"{path} cannot be made ({error.strerror}); choose another --out"
        ) from None
    # run.json says that the directory is a run's, so it is replaced but never missing.
    for folder in (directory.prompt, directory.pictures, path / CLIENTS):
        shutil.rmtree(folder, ignore_errors=True)
    # The config goes first: without it nobody resumes the old run, half of which is gone.
    for name in (CONFIG, RESULT, EVENTS, "report.html"):
        (path / name).unlink(missing_ok=True)
    for old in directory.state.iterdir():
        if old.name != MARK:
            old.unlink()
    facts = {
        "run": directory.run,
        "version": version("fedbbpt"),
        "config": config.toml(),
        "data": fingerprints(config),
        **provenance(),
    }
    write_json(directory.state / MARK, facts)
    (path / CONFIG).write_text(config.toml(), encoding="utf-8")
    return directory


def reopen(path: Path, config: Config) -> RunDir:
    """The directory of a run that began with this very config and data.

    Raises:
        RunDirError: it did not, or there is no run.
    """
    try:
        facts = json.loads((path / "state" / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path} holds no run that can be resumed: {error}") from error
    changed = _difference(_fixed(tomllib.loads(facts["config"])), _fixed(config.tree()))
    if changed:
        key, was, now = changed
        raise RunDirError(
            f"{path} was begun with another config: {key} was {was!r} and is now {now!r}; "
            f"restore {path / CONFIG} or start a new run"
        )
    for name, digest in fingerprints(config).items():
        if facts["data"].get(name) != digest:
            key = name if "." in name else f"data.{name}"
            raise RunDirError(f"{key} has changed since {path} was begun; start a new run")
    return RunDir(path, facts["run"])


def begun(path: Path, config: Config) -> bool:
    """Whether a run with this very config and data was begun here, so that it can be resumed."""
    try:
        reopen(path, config)
        return (path / CONFIG).read_text(encoding="utf-8") == config.toml()
    except (OSError, RunDirError):
        return False


def fingerprints(config: Config) -> dict[str, str]:
    """sha256 of the data files, and of those that candidates come from."""
    data = {"train": config.data.train, "test": config.data.test}
    found = {name: _sha256_of_all(sources(config, path)) for name, path in data.items() if path}
    words = config.prompt.options.get("words")
    words = words if isinstance(words, str) else ""
    paths = {"prompt.public": config.prompt.public, "prompt.words": words}
    return found | {name: _sha256(Path(path)) for name, path in paths.items() if path}


def _sha256_of_all(paths: list[Path]) -> str:
    """Of one file that of its bytes, of many that of their names and bytes."""
    if len(paths) == 1:
        return _sha256(paths[0])
    # A table may name images that are not there; they were left out.
    lines = [f"{path}\0{_sha256(path) if path.is_file() else ''}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _fixed(tree: Any) -> Any:
    """A config without what may change while a run is going on: caps, how requests are sent, and
    who is told of it.
    """
    sending = {"deadline", "timeout", "max_concurrency", "key_env", "prices"}
    sending |= {"requests_per_minute", "tokens_per_minute"}
    caps = {"tokens", "usd", "client_tokens", "client_usd"}
    free = {"budget": caps, "box": sending, "writer": sending, "run": {"trackers"}}
    return {
        name: {k: v for k, v in table.items() if k not in free.get(name, ())}
        if isinstance(table, dict)
        else table
        for name, table in tree.items()
        if name != "trackers"
    }


def _difference(was: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first key at which two trees differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            found = _difference(was.get(name), now.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return None
    return None if was == now else (key, was, now)
