"""`contrastive sweep --reports`: a report for each point of a grid."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from contrastive import UserError
from contrastive.__main__ import main
from contrastive.data.images import load_images, resolve
from contrastive.storage.files import read_json, write_json
from contrastive.sweeps.grids import (
    grid_points,
    load_grid,
)
from contrastive.report import grid_reports
from contrastive.report.provenance import measuring_code
from contrastive.settings.model import make_settings

from .conftest import TINY_RUN

# Stands for `contrastive report`, which other tests run: a report for one point, a failure for the other.
FAKE = """
import pathlib, shutil, sys
if sys.argv[3] == "1.0":
    sys.exit("error: no luck")
pathlib.Path(sys.argv[2]).mkdir(parents=True)
shutil.copy(sys.argv[1], sys.argv[2] + "/results.json")
"""


def test_a_report_for_each_point(write_grid, tmp_path, capsys, monkeypatch):
    def command(given, folder):
        settings = resolve(make_settings(**given)).model_dump(mode="json")
        rest = {"dataset": {"sha256": load_images("digits").sha256}, "provenance": {"code": measuring_code()}}
        write_json(tmp_path / f"{folder.name}.json", {"status": "ok", "settings": settings} | rest)
        made = str(tmp_path / f"{folder.name}.json")
        return [sys.executable, "-c", FAKE, made, str(folder), str(given["temperature"])]

    monkeypatch.setattr(grid_reports, "report_command", command)
    words = ["sweep", str(write_grid()), "--reports", "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert {line.split("  ", 1)[1] for line in lines[:2]} == {
        "temperature 0.5  ok",
        "temperature 1  failed: error: no luck",
    }
    assert lines[2] == str(tmp_path / "out")
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "done before  temperature 0.5",
        "1/1  temperature 1  failed: error: no luck",
    ]
    results = tmp_path / "out" / "temperature-0.5" / "results.json"
    whole = read_json(results)  # without its checksum
    for other in ({"status": "failed"}, {"dataset": {"sha256": "of other data"}}, {"provenance": {"code": "older"}}):
        write_json(results, whole | other)
        main(words)
        assert "done before" not in capsys.readouterr().out, other


def test_a_point_is_asked_for_as_a_report_reads_it():
    given = {"l2_normalize": False, "lr": "1e-3", "second_augment": None}
    words = grid_reports.report_command(given, Path("x"))[3:]
    only = ["--only", "01_pretrain", "--only", "02_linear_eval"]
    assert words == ["report", "--out", "x", *only, "-p", "l2_normalize=false", "-p", "lr=1e-3"]


def test_reports_are_told_apart_by_what_is_measured_too(write_grid, fresh_runs, capsys):
    path = write_grid(vary={"supervised_steps": [1, 2]}, labels=1000)
    assert list(grid_points(load_grid(path), reports=True)) == ["supervised steps 1", "supervised steps 2"]
    assert main(["sweep", str(path), "--reports", "--dry-run"]) == 0
    assert "\n2 runs, 2 to do" in capsys.readouterr().out  # of two seeds, for both points
    same = write_grid(vary={"augment": ["digits", "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0"]})
    assert len(grid_points(load_grid(same), reports=True)) == 1
    with pytest.raises(UserError, match="varies grids, which changes nothing of its points"):
        grid_points(load_grid(write_grid(vary={"grids": ["left_out", "head"]})), reports=True)


def test_a_null_that_a_report_would_not_have_is_refused(write_grid, tmp_path, capsys):
    path = write_grid(base={**TINY_RUN, "preset": "digits", "dataset": "digits"}, vary={"view_size": [None, 24]})
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out")]) == 2
    assert "view_size is null, which in a report stands for the preset's value, and digits has 24" in (
        capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("*"))


def test_ctrl_c_stops_the_reports_too(write_grid, tmp_path, capsys, monkeypatch):
    begun = tmp_path / "begun"
    script = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(100)"
    monkeypatch.setattr(grid_reports, "report_command", lambda given, folder: [sys.executable, "-c", script])

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
