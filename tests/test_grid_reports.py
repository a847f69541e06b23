"""`contrastive sweep --reports`: a report for each point of a grid."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from contrastive import Settings, UserError, resolve
from contrastive.__main__ import main
from contrastive.methods.simclr import SimCLRSettings
from contrastive.report.origins import provenance
from contrastive.settings import EvaluationSettings
from contrastive.storage.files import read_json, write_json
from contrastive.sweeps import reports
from contrastive.sweeps.grids import grid_points, load_grid

from .conftest import TINY_RUN

# Stands for `contrastive report`, which other tests run: a report for one point, a failure for the other.
FAKE = """
import os, pathlib, shutil, sys
if sys.argv[3] == "1.0":
    sys.exit("a line\\nerror: no luck")
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
shutil.copy(sys.argv[1], folder / "results.json")
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
"""
MADE, BEFORE = "temperature 0.5  ok", "temperature 0.5  done before"


@pytest.fixture
def sweep_reports(write_grid, tmp_path, capsys, monkeypatch):
    """A function that makes the reports of a grid of two points, of which the second one fails, in two processes, and
    gives what it said of each point, sorted, and on standard error."""

    def command(given, folder):
        settings, _ = resolve(Settings(**given))
        made = tmp_path / f"{folder.name}.json"
        recorded = {"settings": settings.as_json(), "provenance": provenance(settings)}
        write_json(made, {"status": "ok", **recorded})
        return [sys.executable, "-c", FAKE, str(made), str(folder), str(given["temperature"])]

    def run(*words):
        path = str(write_grid())
        assert main(["sweep", path, "--reports", "--out", str(tmp_path / "out"), "--jobs", "2", *words]) == 1
        said = capsys.readouterr()
        first, second, folder = said.out.splitlines()
        assert [line[:5] for line in (first, second)] == ["1/2  ", "2/2  "]
        assert folder == str(tmp_path / "out")
        return sorted([first[5:], second[5:]]), said.err

    monkeypatch.setattr(reports, "report_command", command)
    return run


FAILED = "temperature 1  failed: error: no luck"


def test_a_report_for_each_point(sweep_reports, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert sweep_reports() == ([MADE, FAILED], "")
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "out" / "temperature-0.5" / "threads").read_text() == "2"
    assert sweep_reports() == ([BEFORE, FAILED], "")  # what failed is tried again


@pytest.mark.parametrize(
    "changes",
    [{"status": "failed"}, {"settings": {"supervised_steps": 7}}, {"settings": {"epochs": 2}},
     {"provenance": {"run": "of other data"}}, {"provenance": {"evaluation_version": 0}}],
    ids=str,
)  # fmt: skip
def test_a_report_that_is_another_is_made_anew(sweep_reports, tmp_path, changes):
    sweep_reports()
    results = tmp_path / "out" / "temperature-0.5" / "results.json"
    whole = read_json(results)  # without its checksum
    for part, change in changes.items():
        write_json(results, {**whole, part: {**whole[part], **change} if isinstance(change, dict) else change})
    assert sweep_reports() == ([MADE, FAILED], "")
    again = read_json(results)
    assert (again["status"], again["settings"]) == ("ok", whole["settings"])


def test_reports_of_other_parameters_or_versions_are_made_anew(sweep_reports, monkeypatch):
    for words in ((), ("-p", "supervised_steps=7"), ("-p", "seeds=3"), ("-p", "lr=0.01")):
        assert sweep_reports(*words)[0] == [MADE, FAILED], words
        assert sweep_reports(*words)[0] == [BEFORE, FAILED], words
    for component in (SimCLRSettings, EvaluationSettings):
        monkeypatch.setattr(component, "VERSION", component.VERSION + 1)
        assert sweep_reports("-p", "lr=0.01")[0] == [MADE, FAILED]
        assert sweep_reports("-p", "lr=0.01")[0] == [BEFORE, FAILED]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"ok"', b'"OK"')), "is damaged (ValueError)"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is damaged (JSONDecodeError)"),
        (lambda path: write_json(path, {"status": "ok"}), "holds no report (KeyError)"),
        (lambda path: write_json(path, {"status": "ok", "provenance": 1}), "holds no report (TypeError)"),
    ],
)
def test_a_damaged_report_is_told_of_and_made_anew(sweep_reports, tmp_path, damage, said):
    sweep_reports()
    results = tmp_path / "out" / "temperature-0.5" / "results.json"
    whole = read_json(results)
    damage(results)
    points, told = sweep_reports()
    assert points == [MADE, FAILED]
    assert told == f"NOTE: {results} {said}. It is made again.\n"
    again = read_json(results)
    assert (again["status"], again["settings"]) == ("ok", whole["settings"])


def test_points_whose_names_look_alike_have_folders_of_their_own(write_grid, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reports._ReportRunner, "report", lambda self, settings, folder, command: asked.append(folder))
    names = {"crop": "a b", "hflip": "a-b", "blur": "\u202e../c"}
    path = write_grid(vary={"augment": list(names)}, names=names)
    assert reports.report_grid(load_grid(path), 1, tmp_path) == 0
    assert sorted(asked) == [tmp_path / "..-c", tmp_path / "a-b-1", tmp_path / "a-b-2"]


def test_a_point_is_asked_for_as_a_report_reads_it():
    given = {"l2_normalize": False, "lr": "1e-3", "second_augment": None}
    words = reports.report_command(given, Path("x"))[3:]
    only = ["--only", "01_pretrain", "--only", "02_linear_eval"]
    assert words == ["report", "--out", "x", *only, "-p", "l2_normalize=False", "-p", "lr=1e-3"]
    assert Settings(l2_normalize="False").method.l2_normalize is False


def test_reports_are_told_apart_by_what_is_measured_too(write_grid, fresh_runs, capsys):
    path = write_grid(vary={"supervised_steps": [1, 2]}, labels=1000)
    assert list(grid_points(load_grid(path), reports=True)) == ["supervised steps 1", "supervised steps 2"]
    assert main(["sweep", str(path), "--reports", "--dry-run"]) == 0
    assert "\n2 runs, 2 to do" in capsys.readouterr().out  # of two seeds, for both points
    same = write_grid(vary={"augment": ["handwriting", "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0"]})
    assert len(grid_points(load_grid(same), reports=True)) == 1
    with pytest.raises(UserError, match="varies grids, which changes nothing of its points"):
        grid_points(load_grid(write_grid(vary={"grids": ["left_out", "head"]})), reports=True)


def test_a_null_that_a_report_would_not_have_is_refused(write_grid, tmp_path, capsys):
    path = write_grid(
        base={**TINY_RUN, "preset": "digits", "dataset": "sklearn_digits"}, vary={"view_size": [None, 24]}
    )
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out")]) == 2
    assert "view_size is null, which in a report stands for the preset's value, and digits has 24" in (
        capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("*"))


def test_ctrl_c_stops_the_reports_too(write_grid, tmp_path, capsys, monkeypatch):
    begun = tmp_path / "begun"
    script = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(100)"
    monkeypatch.setattr(reports, "report_command", lambda given, folder: [sys.executable, "-c", script])

    def interrupt():
        while not begun.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    assert main(["sweep", str(write_grid()), "--reports", "--out", str(tmp_path / "out")]) == 130
    thread.join()
    assert time.monotonic() - started < 50
    assert "the same command goes on" in capsys.readouterr().err
