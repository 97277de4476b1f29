"""The one thread that asks a gateway's model: callers queue, and those who wait are merged."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import FedbbptError, TransientError
from fedbbpt.service.cache import Cache
from fedbbpt.types import Atom, digest, distinct

Evaluate = Callable[[Sequence[Atom], Sequence[int]], list[Array]]


class QuotaSpent(FedbbptError):
    """A caller may not send so many queries."""


class Answer(NamedTuple):
    """Rows, and how many of them went through the model for this caller."""

    rows: list[Array]
    queries: int


@dataclass
class Call:
    """One caller's atoms, those that are wanted, and where the answer goes."""

    atoms: Sequence[Atom]
    wanted: Sequence[int]
    owner: str
    answer: Future[Answer] = field(default_factory=Future)

    @property
    def keys(self) -> list[bytes]:
        """Of the wanted atoms."""
        return [self.atoms[i].key for i in self.wanted]


@dataclass
class Task:
    """Anything else that the model is to do for a caller, at a cost in queries."""

    work: Callable[[], Any]
    owner: str
    cost: int
    answer: Future[Any] = field(default_factory=Future)


class Worker:
    """Evaluates calls one after another, first come, first served.

    What a call before it brought is not asked for again, so that the same query asked twice at
    once is one. Quotas are checked here too, by this one thread, and so hold exactly.

    Let this thread load the model too, as a :class:`Task`: OpenMP keeps a team of threads for each
    thread that ever computed, and two teams on the same cores made a forward pass 12 % slower.

    Args:
        cache: known rows.
        quota: most queries per caller; ``None`` for no limit.
        most: most wanted atoms that are merged into one evaluation; 0 for no merging.
        wait: seconds to wait for calls to merge.
        seen: is told the number of wanted atoms of each evaluation.

    Attributes:
        evaluate: the model, as :meth:`fedbbpt.black_box.AtomicBox.evaluate`; set before any call.
    """

    evaluate: Evaluate

    def __init__(
        self,
        cache: Cache,
        quota: int | None = None,
        most: int = 0,
        wait: float = 0.0,
        seen: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._cache, self._quota = cache, quota
        self._most, self._wait, self._seen = most, wait, seen
        self._spent: Counter[str] = Counter(cache.paid())
        self._items: deque[Call | Task] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="fedbbpt-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._items)

    def known(self, call: Call) -> Answer | None:
        """The answer to a call of which every row is known; it need not queue."""
        keys = call.keys
        rows = self._cache.get(keys)
        return Answer([rows[key] for key in keys], 0) if len(rows) == len(set(keys)) else None

    def submit(self, item: Call | Task) -> Future[Any]:
        """Queue it; its future gets the answer or the error.

        Raises:
            TransientError: the worker is closed.
        """
        with self._changed:
            if self._closed:
                raise TransientError("the gateway is shutting down")
            self._items.append(item)
            self._changed.notify()
        return item.answer

    def close(self) -> None:
        """Finish what is in the queue, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # --- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while (items := self._take()) is not None:
            # Who is gone by now, is not answered; from here on nobody can go.
            items = [item for item in items if item.answer.set_running_or_notify_cancel()]
            calls = [item for item in items if isinstance(item, Call)]
            for item in items:
                if isinstance(item, Task):
                    self._perform(item)
            if calls:
                self._carry_out(calls)

    def _take(self) -> Sequence[Call | Task] | None:
        """The first in the queue with those behind it that it is merged with."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if not self._items:
                return None
            first = self._items.popleft()
            if isinstance(first, Task):
                return [first]
            calls, size, end = [first], len(first.wanted), time.monotonic() + self._wait
            while size < self._most:
                if not self._items:
                    if self._closed or not self._changed.wait(max(0.0, end - time.monotonic())):
                        break
                    continue
                item = self._items[0]
                if isinstance(item, Task) or size + len(item.wanted) > self._most:
                    break
                calls.append(item)
                size += len(item.wanted)
                self._items.popleft()
            return calls

    def _perform(self, task: Task) -> None:
        try:
            self._afford(Counter({task.owner: task.cost}))
            done = task.work()
            # Nobody asks for these rows: they are the record of what the caller has spent.
            spent = [digest(task.owner, str(time.time_ns()), str(i)) for i in range(task.cost)]
            self._pay(dict.fromkeys(spent, np.zeros(0, np.float32)), task.owner)
        except Exception as error:
            task.answer.set_exception(error)
        else:
            task.answer.set_result(done)

    def _carry_out(self, calls: list[Call]) -> None:
        """Answer the calls together or, if that fails, each by itself."""
        try:
            answers = self._answers(calls)
        except Exception as error:
            if len(calls) == 1:
                calls[0].answer.set_exception(error)
                return
            for call in calls:
                self._carry_out([call])
            return
        for call, answer in zip(calls, answers, strict=True):
            call.answer.set_result(answer)

    def _answers(self, calls: Sequence[Call]) -> list[Answer]:
        rows = self._cache.get([key for call in calls for key in call.keys])
        payers: dict[bytes, str] = {}
        news = []  # of each call, the keys that it is the first to ask for
        for call in calls:
            new = [k for k in dict.fromkeys(call.keys) if k not in rows and k not in payers]
            payers.update(dict.fromkeys(new, call.owner))
            news.append(new)
        self._afford(Counter(payers.values()))
        if payers:
            busy = [call for call, new in zip(calls, news, strict=True) if new]
            atoms = distinct(atom for call in busy for atom in call.atoms)
            wanted = [i for i, atom in enumerate(atoms) if atom.key in payers]
            self._seen(len(wanted))
            found = self.evaluate(atoms, wanted)
            fresh = {atoms[i].key: row for i, row in zip(wanted, found, strict=True)}
            for owner in set(payers.values()):
                own = {key: row for key, row in fresh.items() if payers[key] == owner}
                self._pay({k: row for k, row in own.items() if np.isfinite(row).all()}, owner)
            rows |= fresh
        return [
            Answer([rows[key] for key in call.keys], len(new))
            for call, new in zip(calls, news, strict=True)
        ]

    def _afford(self, costs: Counter[str]) -> None:
        for owner, cost in costs.items():
            spent = self._spent[owner]
            if self._quota is not None and spent + cost > self._quota:
                raise QuotaSpent(
                    f"the quota of '{owner}' is {self._quota} queries; {spent} are spent, and "
                    f"this takes {cost} more"
                )

    def _pay(self, rows: dict[bytes, Array], owner: str) -> None:
        if rows:
            self._cache.put(rows, owner)
            self._spent[owner] += len(rows)
