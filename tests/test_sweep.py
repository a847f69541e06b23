"""Running a grid: once, in several processes, interrupted, with failures."""

import importlib
import json
import os
import signal

import pytest
import torch

from contrastive import Settings, sweep
from contrastive.__main__ import main
from contrastive.data.images import resolve
from contrastive.sweeps.grids import (
    GridResult,
    grid_points,
    load_grid,
)
from contrastive.evaluation.probes import validation_accuracy
from contrastive.report import grid_section
from contrastive.settings.model import RunError, make_settings
from contrastive.sweeps.runner import as_json, grid_jobs, run_grid
from contrastive.training.loop import initial_method


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # On images this small more threads only wait for each other, for minutes when the machine is busy.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_runs_that_cannot_be_written_are_one_line(write_grid, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "file" / "runs"))
    assert main(["sweep", str(write_grid())]) == 2
    assert "Set CONTRASTIVE_RUNS" in capsys.readouterr().err


def test_a_dry_run_starts_nothing(write_grid, fresh_runs, capsys):
    assert main(["sweep", str(write_grid()), "--dry-run", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("to do   ") == 4
    assert "4 runs, 4 to do: about" in out
    assert "with 2 jobs at best" in out
    assert not fresh_runs.exists()


def test_the_time_of_a_single_step_is_counted(write_grid):
    settings = grid_points(load_grid(write_grid(), {"batch_size": 512}))["temperature 1"].settings
    costs = {}
    sweep._seconds_of_epoch(settings, costs)
    assert settings.n_images == settings.batch_size  # an epoch has one step
    assert next(iter(costs.values())) > 1e-6


def test_a_grid_is_run_once_and_then_read(write_grid, fresh_runs, capsys, monkeypatch):
    path = write_grid(
        claims=[{"say": "Warmer is better", "better": {"temperature": 1.0}, "worse": {"temperature": 0.5}}]
    )
    assert main(["sweep", str(path)]) == 0
    out = capsys.readouterr().out
    file = fresh_runs / "sweeps" / "own.json"
    assert out.splitlines()[-1] == str(file)
    assert "Warmer is better: " in out
    assert "Not pretrained, the same encoder gets " in out
    assert [line.split("  ")[:3] for line in out.splitlines()[:4]] == [
        [f"{i}/4", f"temperature {t}", f"seed {seed}"]
        for i, (seed, t) in enumerate([(0, "0.5"), (0, "1"), (1, "0.5"), (1, "1")], 1)
    ]
    saved = json.loads(file.read_text())
    assert [point["varied"] for point in saved["points"]] == [{"temperature": 0.5}, {"temperature": 1.0}]
    assert all(set(point["values"]["h"]) == set(point["untrained"]) == {"0", "1"} for point in saved["points"])
    assert all(
        (fresh_runs / run / "encoder.safetensors").exists() for point in saved["points"] for run in point["runs"]
    )
    monkeypatch.setattr(sweep, "validation_accuracy", None)  # nothing is measured again
    monkeypatch.setattr(importlib.import_module("contrastive.training.runs"), "start", None)  # nor trained
    assert main(["sweep", str(path)]) == 0
    assert json.loads(file.read_text()) == saved
    assert "older code" not in capsys.readouterr().err
    monkeypatch.setattr(importlib.import_module("contrastive.training.runs"), "code_hash", lambda *names: "new")
    main(["sweep", str(path)])
    assert "some of these runs were trained by older code" in capsys.readouterr().err


def test_an_interrupted_grid_goes_on(write_grid, fresh_runs, monkeypatch):
    grid, calls = load_grid(write_grid()), []
    real = sweep.measure_one

    def interrupted(settings, *others):
        calls.append(settings)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(settings, *others)

    monkeypatch.setattr(sweep, "measure_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, progress=False)
    assert len(list(fresh_runs.glob("*/encoder.safetensors"))) == 2
    monkeypatch.setattr(sweep, "measure_one", real)
    result = run_grid(grid, progress=False)
    assert [len(result.of(name)) for name in result.points] == [2, 2]


def test_both_kinds_of_features_and_several_processes_give_the_same_numbers(
    write_grid, fresh_runs, tmp_path, monkeypatch
):
    grid = load_grid(write_grid(features=["h", "z"], seeds=1))
    with_one = run_grid(grid, jobs=1, progress=False)
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "others"))
    with_two = run_grid(grid, jobs=2, progress=False)
    assert set(with_one.values) == {"h", "z"}
    for kind in ("h", "z"):
        for name in with_one.points:
            assert with_two.of(name, kind) == with_one.of(name, kind)
    assert with_one.values["h"] != with_one.values["z"]
    assert len(list((tmp_path / "others").glob("*/encoder.safetensors"))) == 2


def test_one_failure_does_not_stop_the_others(write_grid, fresh_runs, capsys, monkeypatch):
    real = sweep.pretrain

    def breaks(settings, progress):
        if settings.temperature == 0.5 and settings.seed == 1:
            raise RunError("the loss is no longer finite")
        if settings.temperature == 1.0 and settings.seed == 0:
            raise RuntimeError("out of\nmemory")
        return real(settings, progress)

    monkeypatch.setattr(sweep, "pretrain", breaks)
    code = main(["sweep", str(write_grid())])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.splitlines() == [
        "FAILED temperature 1, seed 0: RuntimeError: out of memory",
        "FAILED temperature 0.5, seed 1: the loss is no longer finite",
    ]
    saved = json.loads((fresh_runs / "sweeps" / "own.json").read_text())
    assert [list(point["values"]["h"]) for point in saved["points"]] == [["0"], ["1"]]


def test_a_process_that_is_killed_fails_its_own_run_only(write_grid, fresh_runs, capsys, monkeypatch):
    def dies(i, settings, *others):
        if settings.temperature == 0.5:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does for want of memory
        return i, ({"h": 50.0}, False, "", 0.0)

    monkeypatch.setattr(sweep, "_in_worker", dies)
    result = run_grid(load_grid(write_grid(seeds=1)), jobs=2, progress=False)
    assert result.values["h"] == {"temperature 0.5": {}, "temperature 1": {0: 50.0}}
    assert result.failures == [("temperature 0.5", 0, "its process was killed, likely for want of memory")]
    assert "go one at a time" in capsys.readouterr().err


def test_a_training_that_diverges_is_told_of(write_grid, fresh_runs, capsys):
    points = [{"temperature": 1e-30, "l2_normalize": False, "warmup_epochs": 0}, {"temperature": 1.0}]
    assert main(["sweep", str(write_grid(vary={}, points=points, seeds=1))]) == 1
    captured = capsys.readouterr()
    assert "no longer finite at step 1" in captured.err
    assert captured.err.count("\n") == 1
    assert "2/2  temperature 1  seed 0" in captured.out


def test_the_notebook_fits_a_grid_to_its_report():
    settings = resolve(Settings(preset="smoke", ablation_seeds=2))
    for name in ("left_out", "batch_epochs", "n_images", "width"):
        overrides = sweep.ablation_overrides(name, settings)
        points = grid_points(load_grid(name, overrides))
        assert {point.settings.dataset for point in points.values()} == {"digits"}
        assert name in ("batch_epochs", "n_images") or {p.settings.epochs for p in points.values()} == {1}
        assert overrides["seeds"] == 2


def test_an_accuracy_is_kept_for_the_encoder_that_it_was_measured_on(fresh_runs, monkeypatch):
    measured = []
    monkeypatch.setattr(sweep, "validation_accuracy", lambda *args: measured.append(1) or 90.0)
    settings = resolve(Settings(preset="smoke", epochs=1, width=4))
    for _ in range(2):
        assert sweep.measure_one(settings, 100, ("h",))[0] == {"h": 90.0}
    assert len(measured) == 1
    monkeypatch.setattr(sweep, "weights_hash", lambda encoder: "of an encoder that was trained again")
    sweep.measure_one(settings, 100, ("h",))
    assert len(measured) == 2


def test_an_encoder_without_pretraining_is_judged_as_a_pretrained_one(write_grid, fresh_runs, monkeypatch):
    grid = load_grid(write_grid(seeds=1, vary={"features": ["map", "mean"]}))
    found, expected = run_grid(grid, progress=False).untrained, {}
    for name, point in grid_points(grid).items():
        encoder = initial_method(point.settings).encoder
        expected[name] = {0: validation_accuracy(point.settings, encoder, 100)}
    assert found == expected
    assert found["features map"] != found["features mean"]  # of the same weights
    monkeypatch.setattr(sweep, "validation_accuracy", lambda *args: 12.5)
    assert run_grid(grid, progress=False).untrained == found  # it is kept
    for kept in (fresh_runs / "untrained").iterdir():
        kept.write_text(kept.read_text().replace("accuracy", "acuracy"))
    assert run_grid(grid, progress=False).untrained["features map"] == {0: 12.5}


def test_seeds_are_run_in_rounds(write_grid):
    grid = load_grid(write_grid())
    jobs = grid_jobs(grid, grid_points(grid))
    assert [settings.seed for _, settings in jobs] == [0, 0, 1, 1]
    assert as_json(GridResult(grid, grid_points(grid), 10, {"h": {n: {} for n in grid_points(grid)}}))["failures"] == []


def test_a_notebook_runs_its_grids_in_as_many_processes_as_it_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(grid_section, "run_grid", lambda grid, jobs=1: asked.append((grid.name, jobs)))
    grid_section.run_grids(resolve(make_settings(preset="smoke", ablation_jobs=3)))
    assert asked == [("left_out", 3)]


def test_a_grid_that_the_data_cannot_serve_is_left_out_of_a_notebook_with_the_reason(monkeypatch):
    shown, settings = [], resolve(make_settings(preset="smoke")).but(ablation_labels=1300)
    monkeypatch.setattr(grid_section, "display", lambda *things: shown.extend(things))
    assert grid_section.run_grids(settings) == {}
    assert "Left out: `grid left_out: labels=1300: there are only 1,157 beside validation.`" in shown[0].data
