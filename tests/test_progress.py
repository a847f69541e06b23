"""The line in the terminal: what it tells, and that it is a line only where there is a terminal."""

import io
import os
import pty
import re
import time

import pytest
from tqdm import tqdm

from contrastive.evaluation.first_look import PREFIX
from contrastive.report import progress
from contrastive.report.progress import Progress, clock


def show_progress(said="done"):
    """Half a notebook, with a long step, in a little over a second."""
    with Progress("01_pretrain", 20) as line:
        line.on_cell(7)
        line.write("seed 0:  40%|####      | 6/15 [00:12<00:18,  2.0s/epoch]")
        time.sleep(1.2)
    print(said)


def test_steps_are_read_from_what_tqdm_writes():
    written = io.StringIO()
    for _ in tqdm(range(4), desc="probe on raw pixel", file=written, mininterval=0):
        time.sleep(0.01)
    line = Progress("02_linear_eval", 30)
    steps = []
    for text in written.getvalue().split("\r"):
        line.write(text)
        steps.append(line.step)
    assert "probe on raw pixel 3 of 4" in steps
    assert steps[-1] == ""  # done
    line.write("seed 0:  40%|####  | 6/15 [1:00:12<1:30:18,  2.0s/epoch, loss 4.5]")
    assert line.step == "seed 0 6 of 15"
    assert line.line().endswith("seed 0 6 of 15  1:30:18 left in this step")
    started = time.perf_counter()
    for text in ("x" * 100_000, " " * 100_000, "%|" * 50_000, "a" * 200 + "40%|" + " " * 200):
        line.write(text)
    assert time.perf_counter() - started < 10  # minutes, if a pattern tried all ways to match
    line.on_cell(4)
    assert "cell 5 of 30" in line.line()
    assert "left" not in line.line()


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_without_a_terminal_the_lines_are_plain(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.5)
    show_progress()
    shown = capsys.readouterr().out
    first, *lines, last = shown.splitlines()
    assert (first, last) == ("01_pretrain ...", "done")
    assert len(lines) == 2
    assert re.fullmatch(r"01_pretrain +0:0\d  cell 8 of 20  seed 0 6 of 15  0:18 left in this step", lines[0])
    assert "\r" not in shown
    assert "\x1b" not in shown


def test_in_a_terminal_it_is_one_line_that_goes_away(monkeypatch):
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        show_progress()
        terminal.flush()
        text = ""
        while not text.endswith("\n"):
            text += os.read(ours, 4096).decode()
    os.close(ours)
    assert text.count("cell 8 of 20") >= 2
    assert text.count("\n") == 1  # that of the last word only
    assert text.endswith("\r\x1b[Kdone\r\n")


def test_what_is_found_at_first_goes_on_to_the_terminal(capsys):
    line = Progress("01_pretrain", 20)
    line.write(f"{PREFIX}raw pixels\ngive 88.0 %.\n")
    line.write("and nothing else\n")
    assert capsys.readouterr().out == f"{PREFIX}raw pixels give 88.0 %.\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "10 s"), (44, "40 s"), (89, "90 s"), (90, "2 min"), (700, "12 min"), (9000, "2.5 h")]
)
def test_how_long_is_said_roughly(seconds, said):
    assert progress.about(seconds) == said
