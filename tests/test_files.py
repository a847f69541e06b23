"""Files that tell damage, locks, and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contrastive.settings import RunError
from contrastive.storage.files import (
    DamagedError,
    atomic_write,
    locked,
    printable,
    read_json,
    read_lines,
    say,
    write_json,
    write_lines,
)
from contrastive.storage.signals import Stop


def test_links_in_a_folder_are_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".x.new").symlink_to(tmp_path / "victim")
    atomic_write(tmp_path / "x", b"new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "x").is_symlink()


def test_json_files_tell_damage(tmp_path):
    data = {"a": [1, 0.1, "x"], "b": {"c": None}}
    write_json(tmp_path / "x", data)
    assert read_json(tmp_path / "x") == data
    for content in (b"", b"{}", b"[]", b"[" * 100_000, b"\xff", (tmp_path / "x").read_bytes().replace(b"0.1", b"0.2")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DamagedError, match=str(tmp_path / "x")):
            read_json(tmp_path / "x")
        with pytest.raises(DamagedError):
            read_lines(tmp_path / "x", 1)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "y")


def test_lines_tell_damage(tmp_path):
    entries = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    write_lines(tmp_path / "x", entries)
    assert read_lines(tmp_path / "x", 2) == entries
    whole = (tmp_path / "x").read_bytes()
    first = whole[: whole.index(b"\n") + 1]
    for content in (first, whole + first, whole[:-2], whole.replace(b"0.25", b"0.26")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DamagedError, match=str(tmp_path / "x")):
            read_lines(tmp_path / "x", 2)
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "y", 2)


def test_numbers_that_json_has_not_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", {"a": float("nan")})
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    atomic_write(tmp_path / "x", b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=rf"the disk that holds {tmp_path} is full \(.* MB free\)"):
        atomic_write(tmp_path / "x", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# --- Two at once ------------------------------------------------------------------------------------------------


HOLD = """
import sys, time
from pathlib import Path
from contrastive.storage.files import locked
with locked(Path(sys.argv[1]), "training it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds):
    """Another process that holds the lock of a path."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_waits_and_says_for_whom(tmp_path, capsys):
    holder = hold(tmp_path / "run", 3)
    with locked(tmp_path / "run", "training it"):
        assert holder.wait(60) == 0
    said = capsys.readouterr().err
    assert f"NOTE: waiting until process {holder.pid} on " in said
    assert ", training it since 20" in said


def test_a_dead_holder_holds_nothing(tmp_path, capsys):
    holder = hold(tmp_path / "run", 100)
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with locked(tmp_path / "run", "training it"):
        assert time.monotonic() - started < 1
    assert capsys.readouterr().err == ""


def test_a_lock_that_cannot_be_had_is_one_line():
    with pytest.raises(RunError, match="cannot write"), locked(Path("/dev/null/run"), "training it"):
        pass


# --- Signals -------------------------------------------------------------------------------------------


def test_the_first_signal_waits_and_the_second_does_not():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), Stop():
        signal.raise_signal(signal.SIGINT)  # after the last look
    with Stop() as stop:
        for _ in range(2):  # as a terminal that is closed sends them
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        stop.signal = 0


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hostile_text_is_inert_in_a_terminal(capsys):
    assert printable("a\x1b[31m\u202eb\nc é中") == r"a\x1b[31m\u202eb\nc é中"
    say("two\nlines")
    assert capsys.readouterr().err == "NOTE: two\\nlines\n"
