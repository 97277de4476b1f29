"""On a clock that the test moves, what a server sees; and a moment of the real one."""

import heapq
import threading
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.boxes._limits import WINDOW, Limiter
from fedbbpt.errors import ConfigError


class Clock:
    """Seconds that pass only in sleep, which may be as late as a machine under load is."""

    def __init__(self, late=0.0):
        self.now, self.late, self.replies = 1000.0, late, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        until = self.now + seconds + self.late
        while self.replies and self.replies[0][0] <= until:
            self.now, _, told = heapq.heappop(self.replies)
            told()
        self.now = until


def limiter(clock, requests=None, tokens=None):
    return Limiter(requests, tokens, clock, clock.sleep)


def simulate(clock, limits, seconds, workers, reserve=0, use=None, jitter=0.0, seed=0, latency=0.1):
    """Workers that send, wait for the reply and send again; (arrival, tokens) of every request.

    Nobody overtakes in a limiter, so one thread that lets the earliest worker go next sees what
    as many threads would. Half of the latency is on the way there, and up to ``jitter`` more.
    """
    rng, arrivals = np.random.default_rng(seed), []
    free, end = [clock.now] * workers, clock.now + seconds
    while free[0] < end:
        clock.sleep(max(free[0] - clock.now, 0))
        passed = limits.wait(reserve)
        used = reserve if use is None else int(rng.integers(*use))
        seen = clock.now + latency / 2 + rng.uniform(0, jitter)
        back = seen + latency / 2
        arrivals.append((seen, used))
        told = partial(limits.correct, used - reserve, passed)
        heapq.heappush(clock.replies, (back, len(arrivals), told))
        heapq.heapreplace(free, back)
    return arrivals


def busiest(arrivals, units, seconds=60.0):
    """The most units in any window of so many seconds, its ends included."""
    order = sorted(arrivals)
    at, sums = np.array([a for a, _ in order]), np.cumsum([0, *(units(n) for _, n in order)])
    return max(sums[np.searchsorted(at, at + seconds, side="right")] - sums[:-1])


@pytest.mark.parametrize("late", [0.0, 0.03])
def test_three_minutes_fill_the_limit_and_no_minute_exceeds_it(late):
    clock = Clock(late)
    arrivals = simulate(clock, limiter(clock, 1000), 180, workers=32, jitter=0.5)
    assert len(arrivals) >= 0.95 * 3000
    assert busiest(arrivals, lambda _: 1) <= 1000


@settings(max_examples=100)
@given(
    st.one_of(st.none(), st.floats(1, 300)),
    st.integers(30, 20_000),
    st.integers(1, 30),
    st.floats(0, 1.8),
    st.integers(0, 9),
)
def test_no_minute_is_over_any_limit_as_the_server_sees_it(requests, tokens, reserve, jitter, seed):
    clock = Clock()
    limits = limiter(clock, requests, tokens)
    use = (1, reserve + 1)
    arrivals = simulate(clock, limits, 150, 8, reserve, use, jitter, seed)
    assert busiest(arrivals, lambda n: n) <= tokens
    assert busiest(arrivals, lambda _: 1) <= (requests or 1e9)


@pytest.mark.parametrize("requests", [1, 3, 10, 60])
def test_small_limits_are_filled_too(requests):
    clock = Clock()
    arrivals = simulate(clock, limiter(clock, requests), 3600, workers=4)
    assert sum(at <= 1000 + 3600 for at, _ in arrivals) >= 0.95 * 60 * requests
    assert busiest(arrivals, lambda _: 1) <= requests


def test_large_requests_share_a_minute_exactly():
    """Three of 300 tokens fit into 1,000 a minute; a pace alone would let a fourth pass."""
    clock = Clock()
    arrivals = simulate(clock, limiter(clock, tokens=1000), 600, workers=4, reserve=300)
    assert busiest(arrivals, lambda n: n) == 900
    assert len(arrivals) >= 29


@pytest.mark.parametrize("latency", [0.1, 2.0])
def test_tokens_that_were_not_used_are_given_back(latency):
    """Three quarters of what is kept back are used, and yet 95 % of the limit."""
    clock = Clock()
    limits = limiter(clock, tokens=60_000)
    reserve, use = 40, (20, 41)
    arrivals = simulate(clock, limits, 300, 100, reserve, use, jitter=0.1, latency=latency)
    assert sum(n for at, n in arrivals if at <= 1300) >= 0.95 * 5 * 60_000
    assert busiest(arrivals, lambda n: n) <= 60_000


def test_tokens_that_were_kept_back_slow_nobody_down_for_long():
    """Replies need a hundredth of what they may: the pace goes by what they usually need."""
    clock = Clock()
    limits = limiter(clock, tokens=60_000)
    arrivals = simulate(clock, limits, 10, 30, reserve=1000, use=(5, 15), latency=1.0)
    assert len(arrivals) > 0.8 * 30 * 10


def test_tokens_used_beyond_what_was_counted_are_counted():
    clock = Clock()
    limits = limiter(clock, tokens=600)
    limits.wait(100)
    limits.correct(500)
    limits.wait(100)
    assert clock.now == pytest.approx(1000 + WINDOW, abs=0.1)


def test_what_is_forgotten_is_not_given_back():
    """A reply that comes after its minute frees nothing of what was sent since."""
    clock = Clock()
    limits = limiter(clock, tokens=100)
    passed = limits.wait(100)
    clock.now += WINDOW
    limits.wait(100)
    limits.correct(-90, passed)
    limits.wait(10)
    assert clock.now >= 1000 + 2 * WINDOW


def test_a_pause_holds_whoever_asks_and_the_longest_holds():
    clock = Clock()
    limits = limiter(clock)
    limits.pause(7)
    limits.pause(2)
    limits.wait()
    assert 1007 <= clock.now <= 1007.1


def test_a_pause_reaches_those_who_wait_already():
    clock = Clock()
    limits = limiter(clock, 1)
    limits.wait()
    sleep, told = clock.sleep, []

    def once(seconds):
        if clock.now > 1030 and not told:
            told.append(limits.pause(100))
        sleep(seconds)

    limits._sleep = once
    limits.wait()
    assert 1130 <= clock.now <= 1130.2


def test_without_limits_nobody_waits():
    clock = Clock()
    limits = limiter(clock)
    for _ in range(100):
        limits.wait(10**9)
    limits.correct(-(10**9))
    assert clock.now == 1000


@pytest.mark.parametrize("bad", [0, 0.5, -3, float("inf"), float("nan")])
def test_a_limit_below_one_is_refused(bad):
    with pytest.raises(ConfigError, match=r"requests_per_minute is .*; it must be at least 1"):
        Limiter(bad)
    with pytest.raises(ConfigError, match="tokens_per_minute is"):
        Limiter(None, bad)


def test_a_request_that_can_never_pass_is_refused():
    clock = Clock()
    limits = limiter(clock, tokens=100)
    with pytest.raises(ConfigError, match="one request may use 101 tokens"):
        limits.wait(101)
    limits.wait(100)
    assert clock.now == 1000


# --- threads ------------------------------------------------------------------------------------


def test_first_come_first_served():
    """Each thread arrives once the one before it stands in line; a turn takes 6 ms."""
    limits, passed = Limiter(10_000), []
    for _ in range(200):
        limits.wait()  # the burst
    limits.pause(0.2)
    threads = [
        threading.Thread(target=lambda i=i: (limits.wait(), passed.append(i))) for i in range(20)
    ]
    for i, thread in enumerate(threads):
        thread.start()
        while len(limits._line) <= i:
            time.sleep(1e-4)
    for thread in threads:
        thread.join()
    assert passed == list(range(20))


def test_one_who_is_interrupted_leaves_the_line():
    limits, stopped = Limiter(60), threading.Event()
    limits.wait()

    def interrupted(seconds):
        stopped.set()
        raise KeyboardInterrupt

    sleep, limits._sleep = limits._sleep, interrupted
    with pytest.raises(KeyboardInterrupt):
        limits.wait()
    limits._sleep = sleep
    began = time.monotonic()
    limits.wait()
    assert stopped.is_set() and time.monotonic() - began < 1.5


def test_many_threads_for_three_real_seconds():
    """200 a second: nobody is lost, no window sees more than the pace and one burst."""
    limits, sent, end = Limiter(12_000), [], time.monotonic() + 3

    def work():
        while time.monotonic() < end:
            limits.wait()
            sent.append(time.monotonic())
            time.sleep(0.1)  # until the reply

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) >= 0.95 * 200 * 3
    # What was late may make up to 0.1 s of the pace more of a window.
    most = busiest([(at, 1) for at in sent], lambda _: 1, seconds=1.0)
    assert most <= 200 * 1.1 + 240 + 1
