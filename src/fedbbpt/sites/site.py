"""One node at work: letters in, letters out, from a directory that outlives every process.

Flower starts a process for each letter, and may give one out twice. So all that must last is in the
node's home, and a job that was done is never done again: its answer is read and sent once more.

    home/config.toml      the agreed config with the node's own data, model and caps
    home/ledger.sqlite    every paid reply
    home/jobs/RUN/        an answer for each job, with the queries it was charged
    home/egress.jsonl     what left, with the very bytes beside it
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from fedbbpt import registry
from fedbbpt.arrays import Arrays, decode
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import FEDERATION
from fedbbpt.build import Federation, build
from fedbbpt.checkpoint import keep, kept
from fedbbpt.config import Config, read
from fedbbpt.egress import EgressLog
from fedbbpt.errors import FedbbptError, UsageError
from fedbbpt.learned import taught
from fedbbpt.ledger import Ledger
from fedbbpt.post import (
    Card,
    Letter,
    Misread,
    answer,
    asked,
    decline,
    introduce,
    mark,
    own_version,
    read_head,
)
from fedbbpt.record import read_json, write_json
from fedbbpt.rundir import CONFIG, LEDGER, RESULT, RunDir
from fedbbpt.sharing import Split, read_table, share_out
from fedbbpt.sites import locks
from fedbbpt.sites.agreed import agreed, apart
from fedbbpt.types import Job, Update, digest

NODE = "node.json"
"""Who lives in a home, and where its model is."""
UNFIT = "unfit.json"
"""Why a node may not take part."""
GATEWAY_KEY = "FEDBBPT_NODE_KEY"
"""Variable with the key of a model that is loaded beside a node."""


@dataclass(frozen=True)
class Site:
    """A node's home.

    Attributes:
        home: the directory.
        name: of the node.
        config: the agreed one with what is the node's own.
        gateway: URL of its model, where that is loaded beside it.
    """

    home: Path
    name: str
    config: Config
    gateway: str = ""

    @classmethod
    def at(cls, home: Path) -> Site:
        """The node that lives in a directory which :mod:`fedbbpt.sites.node` has made."""
        told = read_json(home / NODE)
        return cls(home, str(told["name"]), read(home / CONFIG), str(told.get("gateway", "")))

    def answer(self, letter: Letter, sends: bool = True) -> Letter:
        """The reply to any letter; whatever goes wrong is told without anything private.

        Args:
            letter: from a server.
            sends: the reply leaves, and is kept as what did.
        """
        with locks.one_letter(self.home):
            try:
                reply = self._answer(letter)
            except Misread as error:
                reply = decline(str(error))
            except Exception as error:
                # What it says may quote an example, so the sentence stays here.
                self._log(error)
                reply = decline(f"{type(error).__name__}; the node's own log says more")
            if sends:
                self._sent(reply)
            return reply

    def _answer(self, letter: Letter) -> Letter:
        head = json.loads(letter["head"])
        if head.get("kind") == "name":
            return {"head": json.dumps({"kind": "name", "name": self.name})}
        theirs, mine = str(head.get("version")), own_version()
        if theirs != mine:
            self._unfit(
                f"the server runs fedbbpt {theirs} and node {self.name} runs {mine}; install the "
                "same version on both"
            )
        if head.get("kind") == "join":
            key = apart(agreed(self.config), head.get("agreed"))
            if key:
                self._unfit(
                    f"node {self.name} was invited with another config: {key} differs; invite it "
                    "again with fedbbpt certs"
                )
            return introduce(self.card())
        if head.get("kind") == "done":
            self._finish(letter)
            return {"head": json.dumps({"kind": "bye"})}
        run, job = asked(letter, self.name)
        return self._work(run, job, letter)

    def card(self) -> Card:
        """What the node says of itself."""
        federation = self.federation(Ledger())
        split, box = federation.split, federation.box
        batches = (split.train, split.holdout, split.test)
        train, back, test = (
            batch[self.name].size if self.name in batch else 0 for batch in batches
        )
        return Card(self.name, train, back, test, box.name, split.pictures)

    def federation(self, ledger: Ledger) -> Federation:
        """The same parts as the server's, with this one client."""
        box: AtomicBox | None = None
        if self.gateway:
            options = {"url": self.gateway, "key_env": GATEWAY_KEY}
            box = registry.make("boxes", "gateway_http", options, "box")
        return build(self.config, own_split(self.config, self.name), ledger, box)

    # --- a job -----------------------------------------------------------------------------------

    def _work(self, run: str, job: Job, letter: Letter) -> Letter:
        if job.seed != self.config.run.seed:
            raise Misread(f"its seed is {job.seed}, and agreed is {self.config.run.seed}")
        key = digest(str(letter["head"]), _bytes(letter, "body")).hex()
        done = self.home / "jobs" / _plain(run) / f"{job.round:06d}-{_plain(job.phase)}.json"
        if done.is_file():
            before = read_json(done)
            if before["key"] == key:  # the task is run again, or the round
                return {"head": before["head"], "body": bytes.fromhex(before["body"])}
        self._check_asked(job, done)
        ledger = Ledger()
        ledger.open(self.home / LEDGER)
        try:
            ledger.run = run
            update, charges = self._do(job, ledger, letter, done)
        finally:
            ledger.close()
        reply = answer(run, job.phase, update)
        done.parent.mkdir(parents=True, exist_ok=True)
        said = {"key": key, "head": reply["head"], "body": _bytes(reply, "body").hex()}
        write_json(done, {**said, "charges": charges})
        return reply

    def _check_asked(self, job: Job, done: Path) -> None:
        """Hold a server to what was agreed, on which the statement and any epsilon rest.

        Raises:
            Misread: it asks for more of the search.
        """
        limits, phase = self.config.rounds, done.name[6:]
        if job.steps > limits.steps:
            raise Misread(f"it asks for {job.steps} steps a round, and agreed are {limits.steps}")
        others = {file.name for file in done.parent.glob(f"*{phase}")} - {done.name}
        if job.phase == "search" and len(others) >= limits.max:
            raise Misread(f"it asks for more rounds than were agreed, which are {limits.max}")

    def _do(
        self, job: Job, ledger: Ledger, letter: Letter, done: Path
    ) -> tuple[Update, list[dict[str, Any]]]:
        federation, known = self.federation(ledger), self._learned(done.parent, letter)
        if known:
            parts, own = taught(federation.parts, known)
            federation.engine.adopt(parts, {} if own is None else {self.name: own})
        budget, engine = federation.budget, federation.engine
        for other in sorted(done.parent.glob("*.json")):
            # A server that went back to its last checkpoint repeats what came behind it. Its last
            # phases have rounds of their own, in no order.
            before = other.name[:6] < f"{job.round:06d}"
            if other != done:
                charged = read_json(other)["charges"]
                budget.restore(c for c in charged if before or c["purse"] != "train")
        had = ledger.paid()
        if read_head(letter, "job").get("shared"):
            job = engine.prepare(job)
        (update,) = engine.map(job, [self.name])
        charges = [
            {"purse": purse, "account": account, "keys": keys}
            for (purse, account), keys in budget.take().items()
        ]
        common = sum(len(each["keys"]) for each in charges if each["account"] == FEDERATION)
        return replace(update, common=common, paid=ledger.paid() - had), charges

    def _learned(self, folder: Path, letter: Letter) -> Arrays:
        """What the parts have learned, now or when it was last told."""
        state = str(read_head(letter, "job")["parts"])
        if not state:
            return {}
        file = folder / f"parts-{_plain(state)}.safetensors"
        if "parts" in letter:
            known = decode(_bytes(letter, "parts"))
            if mark(known) != state:
                raise Misread("what the parts have learned came damaged")
            file.parent.mkdir(parents=True, exist_ok=True)
            keep(file, known)
        if not file.is_file():
            raise Misread("the node was not told what the parts have learned; its home is new")
        return kept(file)

    def _finish(self, letter: Letter) -> None:
        """Keep the prompt that all have tuned; the result comes last, for it says that all is
        there.
        """
        files = {name: file.tobytes() for name, file in decode(_bytes(letter, "body")).items()}
        folder = RunDir(self.home, "").prompt
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            if name != RESULT and Path(name).name == name:
                (folder / name).write_bytes(content)
        write_json(self.home / RESULT, json.loads(files[RESULT]))

    # --- what is kept ----------------------------------------------------------------------------

    def _unfit(self, why: str) -> NoReturn:
        """Tell the server, and the command that runs here, that this node cannot take part."""
        write_json(self.home / UNFIT, {"why": why})
        raise Misread(why)

    def _sent(self, reply: Letter) -> None:
        head = json.loads(reply["head"])
        phase, round = str(head.get("phase", head["kind"])), int(head.get("round", 0))
        payload = str(reply["head"]).encode() + b"\n" + _bytes(reply, "body")
        EgressLog(self.home).write(phase, round, payload)

    def _log(self, error: Exception) -> None:
        known = isinstance(error, FedbbptError)
        said = f"{type(error).__name__}: {error}\n" if known else traceback.format_exc()
        with (self.home / "node.log").open("a", encoding="utf-8") as file:
            file.write(said)


def own_split(config: Config, name: str) -> Split:
    """A node's files as the examples of one client.

    Raises:
        DataError, ConfigError: a file is at fault, or a label is not the federation's.
    """
    data = config.data
    if not data.train:
        raise UsageError("the node has no examples; name its file with --data FILE")
    train = read_table(config, data.train, training=True)
    test = read_table(config, data.test) if data.test else None
    mine = train._replace(sites=(name,) * len(train.inputs))
    if test is not None:
        test = test._replace(sites=(name,) * len(test.inputs))
    return share_out(config, mine, test)


def _bytes(letter: Letter, name: str) -> bytes:
    content = letter.get(name, b"")
    return content if isinstance(content, bytes) else content.encode()


def _plain(name: str) -> str:
    """A name from a letter as part of a path."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise Misread("its run or phase is no plain word")
    return name
