import threading

import pytest

from fedbbpt.black_box import Wrapper
from fedbbpt.errors import BoxError
from fedbbpt.testing.boxes import cases_for
from fedbbpt.testing.toys import toy_box
from fedbbpt.wrappers import timed as module
from fedbbpt.wrappers.timed import Timed

CASE = cases_for(toy_box())[0]


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "perf_counter", lambda: Clock.now)
    return Clock


class Slow(Wrapper):
    """Takes some seconds of that clock."""

    def __init__(self, inner, clock, seconds, fails=False):
        super().__init__(inner)
        self.clock, self.seconds, self.fails = clock, seconds, fails

    def evaluate(self, atoms, wanted):
        self.clock.now += self.seconds
        if self.fails:
            raise BoxError("late and broken")
        return self.inner.evaluate(atoms, wanted)


def test_calls_add_up(clock):
    timed = Timed(Slow(toy_box(), clock, 2.0))
    timed(*CASE)
    clock.now += 50.0
    timed(*CASE)
    assert timed.seconds == 4.0


def test_a_failed_call_counts_too(clock):
    timed = Timed(Slow(toy_box(), clock, 3.0, fails=True))
    with pytest.raises(BoxError):
        timed(*CASE)
    assert timed.seconds == 3.0


def test_a_moment_with_two_inside_counts_once(clock):
    """One is inside from 0 to 10, another from 4 to 7, a third from 12 to 13."""
    gates = {name: (threading.Event(), threading.Event()) for name in "abc"}

    class Held(Wrapper):
        def evaluate(self, atoms, wanted):
            inside, leave = gates[threading.current_thread().name]
            inside.set()
            assert leave.wait(10)
            return self.inner.evaluate(atoms, wanted)

    timed = Timed(Held(toy_box()))
    threads = {name: threading.Thread(target=timed, args=CASE, name=name) for name in gates}
    start = clock.now
    for second, name, what in (
        (0, "a", "in"),
        (4, "b", "in"),
        (7, "b", "out"),
        (10, "a", "out"),
        (12, "c", "in"),
        (13, "c", "out"),
    ):
        clock.now = start + second
        if what == "in":
            threads[name].start()
            assert gates[name][0].wait(10)
        else:
            gates[name][1].set()
            threads[name].join(10)
    assert timed.seconds == 11.0
