import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedbbpt import claims
from fedbbpt import ledger as module
from fedbbpt.budget import FEDERATION
from fedbbpt.errors import RunDirError
from fedbbpt.ledger import Ledger


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def opened(path, run="run", shared=False):
    ledger = Ledger()
    ledger.open(path, shared)
    ledger.run = run
    return ledger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    ledger = opened(path)
    yield ledger
    ledger.close()


def sees(ledger, account, round, number=0):
    """The value that an account finds for a key in a round, or None."""
    found = ledger.view(account, round).get([key(number)])
    return float(found[key(number)][0]) if found else None


def put(ledger, account, round, value, number=0):
    ledger.view(account, round).put({key(number): np.array([float(value)])})


# --- who sees what -------------------------------------------------------------------------------


def test_a_row_of_another_client_is_seen_from_the_next_round_on(ledger):
    put(ledger, "a", 3, 1)
    assert sees(ledger, "a", 3) == 1
    assert sees(ledger, "b", 3) is None
    assert sees(ledger, "b", 2) is None
    assert sees(ledger, "b", 4) == 1


def test_what_the_federation_paid_is_seen_at_once(ledger):
    put(ledger, FEDERATION, 3, 1)
    assert sees(ledger, "a", 3) == sees(ledger, "b", 3) == 1


def test_other_runs_are_seen_whole(path, ledger):
    put(ledger, "a", 5, 1)
    other = opened(path, "other")
    assert sees(other, "b", 0) == 1
    put(other, "b", 0, 2, number=1)
    assert sees(ledger, "a", 0, number=1) == 2
    other.close()


def test_of_several_rows_ones_own_counts_and_else_the_earliest(ledger):
    put(ledger, "b", 4, 4)
    put(ledger, "a", 4, 3)
    put(ledger, "c", 2, 2)
    assert sees(ledger, "a", 4) == 3
    assert sees(ledger, "b", 4) == 4
    assert sees(ledger, "d", 9) == 2
    put(ledger, "b", 2, 1, number=1)
    put(ledger, "a", 2, 0, number=1)
    assert sees(ledger, "d", 9, number=1) == 0  # neither was first: by name


def test_what_is_seen_does_not_depend_on_memory(path, ledger):
    put(ledger, "a", 1, 1)
    put(ledger, "b", 1, 2)
    put(ledger, "c", 0, 3)
    again = opened(path)
    for account in "abcd":
        for round in range(3):
            assert sees(ledger, account, round) == sees(again, account, round)
    again.close()


def test_a_row_once_recorded_stays(path, ledger):
    put(ledger, "a", 1, 1)
    put(ledger, "a", 1, 2)
    assert sees(ledger, "a", 1) == 1
    assert ledger.paid() == 1
    again = opened(path)
    assert sees(again, "a", 1) == 1
    again.close()


def test_a_row_of_ones_own_run_counts_before_another_runs(path, ledger):
    """Two runs at work on one file at the same time; each goes on with its own bits."""
    put(ledger, "a", 5, 1)
    other = opened(path, "other")
    other.record({key(0): np.array([2.0])}, "a", 3)
    other.close()
    again = opened(path)
    assert sees(again, "a", 5) == 1
    again.close()


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["<f8", "<f4", "<f2", "<i8"])
def test_rows_come_back_bit_for_bit(path, ledger, kind):
    row = np.random.default_rng(0).standard_normal(7).astype(kind)
    ledger.view("a", 0).put({key(0): row})
    again = opened(path)
    found = again.view("a", 0).get([key(0)])[key(0)]
    assert (found.dtype, found.tobytes()) == (row.dtype, row.tobytes())
    again.close()


def test_more_keys_than_one_query_takes(path, ledger):
    rows = {key(i): np.array([float(i)]) for i in range(2345)}
    ledger.view("a", 0).put(rows)
    again = opened(path)
    found = again.view("a", 0).get([*rows, key(9999)])
    assert found.keys() == rows.keys()
    assert all(found[k] == rows[k] for k in rows)
    assert again.paid() == 2345
    again.close()


def test_nothing_is_forgotten_when_memory_is_full(path, ledger, monkeypatch):
    """Some rows in memory, some in the file, and a memory that overflows while they are read."""
    rows = {key(i): np.array([float(i)]) for i in range(20)}
    ledger.view("a", 0).put(rows)
    again = opened(path)
    monkeypatch.setattr(module, "_REMEMBERED", 8)
    view = again.view("a", 0)
    assert len(view.get(list(rows)[:6])) == 6
    assert view.get(list(rows)).keys() == rows.keys()
    again.close()


def test_a_file_that_was_empty_is_not_asked_until_somebody_else_writes(path, ledger, monkeypatch):
    """Whatever it holds is remembered; each search would ask for hundreds of rows in vain."""
    asked = []
    select = module.select
    monkeypatch.setattr(module, "select", lambda *a: asked.append(a) or select(*a))
    put(ledger, "a", 0, 1)
    assert sees(ledger, "a", 0) == 1 and ledger.view("a", 0).get([key(7)]) == {}
    assert not asked
    other = opened(path, "other")
    other.record({key(7): np.array([2.0])}, "a", 3)
    other.close()
    assert sees(ledger, "a", 0, number=7) == 2
    assert asked


def test_only_this_runs_rows_count_as_paid(path, ledger):
    put(ledger, "a", 0, 1)
    other = opened(path, "other")
    assert other.paid() == 0
    other.close()


def test_putting_nothing_writes_nothing(ledger):
    ledger.view("a", 0).put({})
    assert ledger.paid() == 0
    assert ledger.view("a", 0).get([]) == {}


def test_views_may_be_made_before_the_file_is_open(path):
    ledger = Ledger()
    view = ledger.view("a", 0)
    ledger.open(path)
    view.put({key(1): np.ones(2)})
    assert ledger.paid() == 1
    ledger.close()


# --- kills and threads ---------------------------------------------------------------------------

WRITER = """
import sys, pathlib, numpy as np
from fedbbpt.ledger import Ledger
ledger = Ledger()
ledger.open(pathlib.Path(sys.argv[1]))
ledger.run = "run"
for i in range(100000):
    ledger.view("a", i).put({i.to_bytes(16, "little"): np.array([float(i)])})
    print(i, flush=True)
"""


def test_what_was_recorded_survives_a_kill(path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    last = -1
    for line in writer.stdout:
        last = int(line)
        if last >= 50:
            break
    os.kill(writer.pid, signal.SIGKILL)
    writer.stdout.close()
    writer.wait()
    ledger = opened(path)
    assert ledger.paid() >= last + 1
    for i in range(last + 1):
        assert sees(ledger, "a", i, number=i) == i
    ledger.close()


def test_many_threads_share_one_ledger(path, ledger):
    def work(thread: int) -> list[bool]:
        view, right = ledger.view(f"client {thread}", 0), []
        for i in range(40):
            known = view.get([key(i), key(1000 * (thread + 1) + i - 1)])
            right.append(key(i) not in known or float(known[key(i)][0]) == thread)
            view.put({key(i): np.array([thread + 0.0]), key(1000 * (thread + 1) + i): np.ones(1)})
            right.append(float(view.get([key(i)])[key(i)][0]) == thread)
        return right

    with ThreadPoolExecutor(8) as pool:
        assert all(all(right) for right in pool.map(work, range(8)))
    assert ledger.paid() == 8 * 80
    again = opened(path)
    assert sees(again, "client 3", 0, number=5) == 3
    again.close()


def test_two_processes_may_use_one_file(path, ledger):
    other = opened(path, "other")
    for i in range(20):
        put(ledger, "a", i, i, number=i)
        put(other, "a", i, i, number=100 + i)
    assert (ledger.paid(), other.paid()) == (20, 20)
    other.close()


def test_a_file_that_another_process_is_making_is_waited_for(path, monkeypatch):
    """SQLite itself does not wait for a writer where the journal's mode is to change."""
    other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as hurried:
        hurried.setattr(module, "WAIT", 0.1)
        with pytest.raises(RunDirError, match="database is locked"):
            opened(path, "run")
    done = threading.Timer(0.3, other.execute, ["COMMIT"])
    done.start()
    opened(path, "run").close()
    done.join()
    other.close()


# --- claims --------------------------------------------------------------------------------------

KEYS = [key(i) for i in range(4)]


@pytest.fixture
def runs(path):
    """Two runs at work on one file."""
    both = [opened(path, name, shared=True) for name in ("one", "two")]
    yield both
    for ledger in both:
        ledger.close()


def test_what_one_run_is_paying_for_no_other_pays(runs):
    one, two = runs
    assert one.claim(KEYS[:3]) == KEYS[:3]
    assert two.claim(KEYS) == KEYS[3:]
    assert one.claim(KEYS) == KEYS[:3]  # a client of the same run asks for itself
    one.release(KEYS[:3])
    assert two.claim(KEYS) == KEYS


def test_what_was_recorded_meanwhile_is_not_claimed(runs):
    one, two = runs
    assert two.view("a", 0).get(KEYS[:1]) == {}
    put(one, "a", 0, 1)  # between the look and the claim
    assert two.claim(KEYS[:2]) == KEYS[1:2]
    one.claim(KEYS[1:2])
    assert sees(two, "a", 0) == 1


def test_claims_end_with_their_process(runs, path):
    """Killed while it pays; and, where nobody can tell, by their age."""
    code = (
        "import os, pathlib, signal, sys; from fedbbpt.ledger import Ledger; l = Ledger();"
        "l.run = 'dead'; l.open(pathlib.Path(sys.argv[1]), True);"
        "l.claim([bytes([i]) + bytes(15) for i in range(4)]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert dead.returncode == -signal.SIGKILL
    one, two = runs
    assert one.claim(KEYS) == KEYS
    assert two.claim(KEYS) == []
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE claims SET since = since - ?", (claims.PATIENCE,))
    db.close()
    assert two.claim(KEYS) == KEYS
    assert one.claim(KEYS) == []  # it may still be at work, but they are no longer its own
    one.release(KEYS)
    assert one.claim(KEYS) == []


def test_a_ledger_of_ones_own_claims_nothing(path, ledger):
    other = opened(path, "other")
    assert ledger.claim(KEYS) == other.claim(KEYS) == KEYS
    other.close()


def test_threads_of_two_runs_pay_once(path):
    """Overlapping halves in other orders, eight threads: nobody waits in a circle."""
    from fedbbpt.testing.toys import CountingBox, toy_box
    from fedbbpt.types import Atom
    from fedbbpt.wrappers.cached import Cached

    box = CountingBox(toy_box())
    box.inner.evaluate = lambda atoms, wanted: [np.array([float(i)]) for i in wanted]
    atoms = [Atom(key(i), None) for i in range(60)]
    ledgers = [opened(path, f"run {i}", shared=True) for i in range(8)]

    def work(number):
        cached = Cached(box, ledgers[number].view("a", 0))
        order = np.random.default_rng(number).permutation(60)
        for part in np.array_split(order, 6):
            rows = cached.evaluate(atoms, list(part))
            assert [float(row[0]) for row in rows] == list(part)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(box.asked) == sorted(atom.key for atom in atoms)
    assert sum(ledger.paid() for ledger in ledgers) == 60
    for ledger in ledgers:
        ledger.close()


# --- other files ---------------------------------------------------------------------------------


def test_a_file_that_is_no_ledger_is_refused(path):
    path.write_text("text,label\n" * 50)
    with pytest.raises(RunDirError, match="cannot be used as a ledger"):
        Ledger().open(path)


def test_a_ledger_of_another_version_is_refused(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(RunDirError, match="schema 99; this version reads 1"):
        Ledger().open(path)


def test_no_text_is_stored(path, ledger):
    from fedbbpt.testing.toys import toy_box
    from fedbbpt.types import RenderedPrompt
    from fedbbpt.wrappers.cached import Cached

    prompt = RenderedPrompt("Secret {label}.", ("hidden", "veiled"))
    Cached(toy_box(), ledger.view("a", 0))([prompt], ["a private sentence"])
    ledger.close()
    data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for word in (b"Secret", b"hidden", b"veiled", b"private"):
        assert word not in data
    assert ledger is not None and len(data) > 0
    ledger.open(path)
