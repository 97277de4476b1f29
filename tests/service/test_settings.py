"""What a gateway is told, and what it refuses to begin with."""

import numpy as np
import pytest

from fedbbpt.config import read as read_run
from fedbbpt.errors import ConfigError, RunDirError
from fedbbpt.service.cache import OVERHEAD, Durable, Memory
from fedbbpt.service.settings import Gateway, Keys, open_to, read

BOX = '[box]\nkind = "function"\nanswer = "toybox:answer"\n'
RUN = '[data]\ntrain = "a.csv"\n[prompt]\ntemplate = "It was {label}"\n'


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_config_may_hold_a_box_alone_or_be_that_of_a_run(written, tmp_path):
    path = written(BOX + '[gateway]\nquota = 5\nledger = "paid.sqlite"\n')
    box, table = read(path, ["gateway.wait_ms=3"])
    assert (box.kind, box.options) == ("function", {"answer": "toybox:answer"})
    assert table == Gateway(quota=5, ledger=str(tmp_path / "paid.sqlite"), wait_ms=3)
    path = written(RUN + BOX + "[gateway]\nmax_batch = 0\n")
    assert read(path)[1].max_batch == 0
    assert read_run(path).box == box  # a run takes no notice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RUN, r"no table \[box\]"),
        (BOX + "[gateway]\nqouta = 1", "unknown key gateway.qouta; did you mean 'quota'"),
        (BOX + "[gateway]\nquota = -1", "gateway.quota is -1"),
        ("gateway = 3\n" + BOX, "gateway is 3; write a table"),
    ],
)
def test_tables_that_cannot_be_used(written, text, said):
    with pytest.raises(ConfigError, match=said):
        read(written(text))


def test_keys_by_name(monkeypatch):
    monkeypatch.setenv("ONE", "sk-one==")
    monkeypatch.setenv("MANY", "ash=sk-a, birch=sk-b==\n cedar=sk=c")
    keys = Keys(["ONE", "MANY"])
    shown = ("sk-one==", "sk-a", "sk-b==", "sk=c")
    assert [keys.owner(f"Bearer {key}") for key in shown] == ["ONE", "ash", "birch", "cedar"]
    for header in ("", "Bearer", "Bearer ", "sk-a", "Basic sk-a", "Bearer sk-a=", "Bearer ONE"):
        assert keys.owner(header) is None
    assert "sk-" not in repr(vars(keys))
    assert Keys([]).owner("") == "anyone"


@pytest.mark.parametrize(
    ("value", "said"), [("", "which is not set"), ("a=1 a=2", "two keys named 'a'")]
)
def test_keys_that_cannot_be_used(monkeypatch, value, said):
    monkeypatch.setenv("KEYS", value)
    with pytest.raises(ConfigError, match=said):
        Keys(["KEYS"])


def test_without_keys_only_this_machine_is_served(monkeypatch):
    open_to("127.0.0.1", Keys([]))
    with pytest.raises(ConfigError, match="lets everyone who can reach it"):
        open_to("0.0.0.0", Keys([]))
    monkeypatch.setenv("KEYS", "sk")
    open_to("0.0.0.0", Keys(["KEYS"]))


def test_memory_keeps_what_was_asked_for_last():
    row = np.zeros(10, np.float32)
    memory = Memory(3 * (row.nbytes + OVERHEAD))
    memory.put({b"a": row, b"b": row, b"c": row}, "ash")
    memory.get([b"a"])
    memory.put({b"d": row}, "birch")
    assert set(memory.get([b"a", b"b", b"c", b"d"])) == {b"a", b"c", b"d"}
    assert memory.paid() == {"ash": 3, "birch": 1}


def test_a_file_that_is_no_ledger(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no ledger at all, but notes" * 50)
    with pytest.raises(RunDirError, match="cannot be used as a ledger"):
        Durable(path)
