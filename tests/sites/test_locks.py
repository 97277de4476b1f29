"""Locks of a node's home."""

import os
import signal

import pytest

from fedbbpt.errors import RunDirError
from fedbbpt.sites.locks import broken_off, one_command, one_letter


def test_one_command_at_a_time(tmp_path):
    with one_command(tmp_path), pytest.raises(RunDirError, match="at work in"):
        with one_command(tmp_path):
            pass
    with one_command(tmp_path):
        pass


def test_a_letter_that_ends_in_any_way_is_not_broken_off(tmp_path):
    assert not broken_off(tmp_path)
    with one_letter(tmp_path):
        assert not broken_off(tmp_path)
    with pytest.raises(ValueError, match="inside"), one_letter(tmp_path):
        raise ValueError("inside")
    assert not broken_off(tmp_path)


def test_a_process_killed_over_a_letter_is_told_of_once(tmp_path):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with one_letter(tmp_path):
            os.write(writer, b".")
            signal.pause()
    os.read(reader, 1)
    assert not broken_off(tmp_path)  # it is at work
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert broken_off(tmp_path) and not broken_off(tmp_path)
    for end in (reader, writer):
        os.close(end)
