"""Running a grid: once, in several processes, interrupted, with failures."""

import json
import os
import signal

import pytest
import torch

from contrastive import Settings, resolve
from contrastive.__main__ import main
from contrastive.evaluation.probes import validation_accuracy
from contrastive.report import grid_section
from contrastive.settings import RunError
from contrastive.storage.tensors import hash_tensors
from contrastive.sweeps import command, runner, workers
from contrastive.sweeps.grids import grid_points, load_grid
from contrastive.sweeps.runner import grid_jobs, measure_one, run_grid
from contrastive.sweeps.verdicts import GridResult
from contrastive.training import initial_method, load_encoder, pretrain

from .conftest import TINY_RUN


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


def test_a_dry_run_tells_what_is_done(write_grid, fresh_runs, capsys):
    path = write_grid(seeds=1)
    first = grid_points(load_grid(path))["temperature 0.5"].settings
    pretrain(first, progress=False)
    other = fresh_runs / first.replace(temperature=1.0).run_name
    other.mkdir()
    (other / "state.pt").touch()
    assert main(["sweep", str(path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:2]] == ["done", "partly"]
    assert lines[2].startswith("2 runs, 1 to do: about ")


def test_the_time_of_a_single_step_is_counted(write_grid):
    settings = grid_points(load_grid(write_grid(), {"batch_size": 512}))["temperature 1"].settings
    costs = {}
    assert command._seconds_of_epoch(settings, costs) > 1e-3
    assert settings.data.n_images == settings.optimiser.batch_size  # an epoch has one step
    # Another method or encoder takes another time
    for other in (settings, settings.replace(method="byol"), settings.replace(encoder="resnet18", batch_size=8)):
        command._seconds_of_epoch(other, costs)
    assert len(costs) == 3
    # Of many, not all are timed: the nearest tells
    known = dict(costs)
    costs |= {(1000 + i, 8): 1.0 for i in range(command.TIMED)}
    cheap = settings.replace(base_channels=3, batch_size=256)
    assert command._seconds_of_epoch(cheap, costs) == pytest.approx(known[next(iter(known))] * 512)
    assert command._seconds_of_epoch(cheap.replace(base_channels=999), costs) == 512.0


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
    assert len({run for point in saved["points"] for run in point["runs"]}) == 4
    assert all(
        (fresh_runs / run / "encoder.safetensors").exists() for point in saved["points"] for run in point["runs"]
    )
    # Of four encoders, and of their first weights, which differ by seed only
    assert len(list((fresh_runs / "cache").glob("validation-*.safetensors"))) == 6
    monkeypatch.setattr(runner, "validation_accuracy", None)  # nothing is measured again
    monkeypatch.setattr("contrastive.training.runs.start", None)  # nor trained
    assert main(["sweep", str(path)]) == 0
    assert json.loads(file.read_text()) == saved


def test_an_interrupted_grid_goes_on(write_grid, fresh_runs, monkeypatch):
    grid, calls = load_grid(write_grid()), []
    real = runner.measure_one

    def interrupted(settings, *others):
        calls.append(settings)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(settings, *others)

    monkeypatch.setattr(runner, "measure_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, progress=False)
    assert len(list(fresh_runs.glob("*/encoder.safetensors"))) == 2
    monkeypatch.setattr(runner, "measure_one", real)
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
    real = runner.pretrain

    def breaks(settings, progress):
        if settings.method.temperature == 0.5 and settings.runtime.seed == 1:
            raise RunError("the loss is no longer finite")
        if settings.method.temperature == 1.0 and settings.runtime.seed == 0:
            raise RuntimeError("out of\nmemory")
        return real(settings, progress)

    monkeypatch.setattr(runner, "pretrain", breaks)
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
    def dies(settings, *others):
        if settings.method.temperature == 0.5:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does for want of memory
        return {"h": 50.0}, "", 0.0

    monkeypatch.setattr(runner, "measure_one", dies)
    result = run_grid(load_grid(write_grid(seeds=1)), jobs=2, progress=False)
    assert result.values["h"] == {"temperature 0.5": {}, "temperature 1": {0: 50.0}}
    assert result.failures == [("temperature 0.5", 0, "its process was killed, likely for want of memory")]
    assert "go one at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "n", "steps", "threads", "jobs"),
    [("cpu", 8, 4800, 2, 2), ("cpu", 8, 4800, 16, 4), ("cpu", 3, 4800, 16, 3), ("cpu", 8, 900, 2, 1),
     ("cpu", 8, 4800, 1, 1), ("cuda", 8, 4800, 16, 1), ("cuda:1", 8, 4800, 16, 1)],
)  # fmt: skip
def test_how_many_trainings_at_once_pay(monkeypatch, device, n, steps, threads, jobs):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert workers.jobs_that_pay(device, n, steps) == jobs


def test_workers_have_this_environment_also_when_they_were_started_in_another(monkeypatch):
    def seen():
        return {value for _, value in workers.in_workers(os.getenv, [("CONTRASTIVE_TRIED", "none")] * 4, jobs=2)}

    for value in ("one", "two"):
        monkeypatch.setenv("CONTRASTIVE_TRIED", value)
        assert seen() == {value}
    monkeypatch.delenv("CONTRASTIVE_TRIED")
    assert seen() == {"none"}


def test_a_grid_that_nobody_gave_processes_takes_as_many_as_pay(write_grid, fresh_runs, monkeypatch):
    asked, real = [], runner.in_workers
    monkeypatch.setattr(
        runner, "in_workers", lambda function, tasks, jobs: asked.append(jobs) or real(function, tasks, 1)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    grid = load_grid(write_grid(seeds=1))
    run_grid(grid, jobs=None, progress=False)
    monkeypatch.setattr(workers, "WORTH", 1)
    run_grid(grid, jobs=None, progress=False)  # all of them are done
    run_grid(load_grid(write_grid(seeds=2)), jobs=None, progress=False)
    assert asked == [1, 1, 2]


def test_a_training_that_diverges_is_told_of(write_grid, fresh_runs, capsys):
    points = [{"temperature": 1e-30, "l2_normalize": False, "warmup_epochs": 0}, {"temperature": 1.0}]
    assert main(["sweep", str(write_grid(vary={}, points=points, seeds=1))]) == 1
    captured = capsys.readouterr()
    assert "no longer finite at step 1" in captured.err
    assert captured.err.count("\n") == 1
    assert "2/2  temperature 1  seed 0" in captured.out


def test_an_accuracy_is_kept_for_what_it_was_measured_on(fresh_runs, monkeypatch):
    measured = []
    monkeypatch.setattr(runner, "validation_accuracy", lambda *args: measured.append(1) or 90.0)
    settings, _ = resolve(Settings(preset="smoke", epochs=1, base_channels=4))
    for _ in range(2):
        assert measure_one(settings, 100, ("h",))[0] == {"h": 90.0}
    assert len(measured) == 1
    for count, (n_labels, kinds) in enumerate([(200, ("h",)), (100, ("z",)), (100, ("h", "z"))], 2):
        measure_one(settings, n_labels, kinds)
        assert len(measured) == min(count, 3)  # all of the last were there
    monkeypatch.setattr(runner, "hash_tensors", lambda tensors: "of an encoder that was trained again")
    measure_one(settings, 100, ("h",))
    assert len(measured) == 4
    monkeypatch.undo()


def test_an_encoder_without_pretraining_is_judged_as_a_pretrained_one(write_grid, fresh_runs, monkeypatch, capsys):
    grid = load_grid(write_grid(seeds=1, vary={"pool": ["none", "avg"]}))
    found, expected, weights = run_grid(grid, progress=False).untrained, {}, set()
    for name, point in grid_points(grid).items():
        settings, images = resolve(point.settings)
        encoder = initial_method(settings, images.format).encoder
        weights.add(hash_tensors(encoder.state_dict()))
        expected[name] = {0: validation_accuracy(settings, images, encoder, 100)}
    assert found == expected
    assert found["pool none"] != found["pool avg"]
    assert len(weights) == 1  # so that more than the weights has to tell the two apart
    kept = {path: path.read_bytes() for path in (fresh_runs / "cache").iterdir() if path.suffix == ".safetensors"}
    assert len(kept) == 4
    monkeypatch.setattr(runner, "validation_accuracy", lambda *args: 12.5)
    assert run_grid(grid, progress=False).untrained == found
    for path, content in kept.items():
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = run_grid(grid, progress=False)
    assert again.untrained == {name: {0: 12.5} for name in found}
    assert [again.of(name) for name in found] == [[12.5], [12.5]]
    assert capsys.readouterr().err.count("is damaged, or of another version") == 4


@pytest.mark.parametrize("method", ["byol", "mocov2", "supervised"])
def test_a_grid_of_any_method_is_run_once(write_grid, fresh_runs, monkeypatch, method):
    base = {**TINY_RUN, "encoder": "cnn", "method": method}
    grid = load_grid(write_grid(base=base, seeds=1, vary={"lr": [1e-3, 4e-3]}))
    first = run_grid(grid, progress=False)
    assert first.failures == []
    assert all(len(first.of(name)) == len(first.untrained[name]) == 1 for name in first.points)
    monkeypatch.setattr(runner, "validation_accuracy", None)
    monkeypatch.setattr("contrastive.training.runs.start", None)
    again = run_grid(grid, progress=False)
    assert (again.values, again.untrained, again.failures) == (first.values, first.untrained, [])


def test_projections_are_judged_by_the_trained_head(write_grid, fresh_runs):
    grid = load_grid(write_grid(features=["z"], seeds=1, vary={"head": ["none", "linear"]}))
    found = run_grid(grid, progress=False)
    settings, images = resolve(found.points["head none"].settings)
    encoder = load_encoder(pretrain(settings, progress=False))
    assert found.of("head none", "z") == [validation_accuracy(settings, images, encoder, 100)]  # z is h
    other = load_encoder(pretrain(found.points["head linear"].settings, progress=False))
    assert found.of("head linear", "z") != [validation_accuracy(settings, images, other, 100)]


def test_seeds_are_run_in_rounds(write_grid):
    grid = load_grid(write_grid())
    points = grid_points(grid)
    assert [settings.runtime.seed for _, settings in grid_jobs(grid, points)] == [0, 0, 1, 1]
    kept = command.as_json(GridResult(grid, points, 10, {"h": {name: {} for name in points}}))
    assert kept["failures"] == []
    assert [point["runs"] for point in kept["points"]] == [
        [point.settings.replace(seed=seed).run_name for seed in (0, 1)] for point in points.values()
    ]


def test_a_notebook_runs_its_grids_in_as_many_processes_as_it_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(grid_section, "run_grid", lambda grid, jobs=1: asked.append((grid.name, jobs)))
    grid_section.run_grids(resolve(Settings(preset="smoke", ablation_jobs=3))[0])
    assert asked == [("left_out", 3)]


def test_a_grid_that_the_data_cannot_serve_is_left_out_of_a_notebook_with_the_reason(monkeypatch):
    shown, settings = [], resolve(Settings(preset="smoke"))[0].replace(ablation_labels=1300)
    monkeypatch.setattr(grid_section, "display", lambda *things: shown.extend(things))
    assert grid_section.run_grids(settings) == {}
    assert "Left out: `grid left_out: labels=1300: there are only 1,157 beside validation.`" in shown[0].data


def test_a_grid_that_the_method_cannot_serve_is_left_out_of_a_notebook_with_the_reason(monkeypatch):
    shown, asked = [], []
    monkeypatch.setattr(grid_section, "display", lambda *things: shown.extend(things))
    monkeypatch.setattr(grid_section, "run_grid", lambda grid, jobs: asked.append(grid))
    settings, _ = resolve(Settings(preset="smoke", method="byol", grids="head,left_out,temperature"))
    assert list(grid_section.run_grids(settings)) == ["left_out"]
    assert asked[0].base["method"] == "byol"
    assert [said.data.partition(", point")[0] for said in shown] == [
        "*Left out: `grid head", "*Left out: `grid temperature",
    ]  # fmt: skip
    assert all("belongs to method simclr" in said.data and "byol was chosen" in said.data for said in shown)
    assert all(said.data.count("\n") == 0 for said in shown)
