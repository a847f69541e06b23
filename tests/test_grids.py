import importlib
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats as scipy_stats

from contrastive import Settings, UserError, sweep
from contrastive.__main__ import main
from contrastive.data import resolve
from contrastive.files import write_json
from contrastive.grids import (
    Claim,
    Grid,
    GridResult,
    finding,
    grid_points,
    least_difference,
    load_grid,
    paired_interval,
    summary_sentence,
    verdict,
)
from contrastive.report import grid_reports, grid_section
from contrastive.settings import RunError, grids_folder, make_settings
from contrastive.sweep import as_json, grid_jobs, run_grid

from .conftest import HAVE_MNIST

TINY = {"preset": "smoke", "epochs": 1, "width": 2, "batch_size": 128}
SMALL = {"title": "A test", "base": TINY, "seeds": 2, "labels": 100, "vary": {"temperature": [0.5, 1.0]}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # On images this small more threads only wait for each other, for minutes when the machine is busy.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write(tmp_path):
    def to_file(**changes):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**SMALL, **changes}))
        return path

    return to_file


@pytest.mark.parametrize("path", sorted(grids_folder().glob("*.yaml")), ids=lambda p: p.stem)
def test_every_grid_that_comes_along_is_whole(path):
    if path.stem == "n_images" and not HAVE_MNIST:
        pytest.skip("needs MNIST's number of images")
    grid = load_grid(path, {"dataset": "mnist"} if HAVE_MNIST else {"dataset": "digits", "n_images": 1024})
    points = grid_points(grid)
    assert len(points) == len(grid.points) + int(np.prod([len(v) for v in grid.vary.values()]) if grid.vary else 0)
    assert grid.question.endswith("?")
    for claim in grid.claims:
        assert finding(GridResult(grid, points, 1000), claim).endswith("not run here.")


def test_the_grid_in_readme_is_whole(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (tmp_path / "my.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    grid = load_grid(tmp_path / "my.yaml", {"dataset": "digits", "n_images": 1024})
    assert len(grid_points(grid)) == 4
    assert grid.name == "my"
    assert len(grid.claims) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vari": {"temperature": [1]}}, "unknown part of a grid 'vari'. Did you mean 'vary'?"),
        ({"vary": {"temprature": [1]}}, "grid own, point temprature 1: unknown parameter 'temprature'. Did you mean"),
        ({"vary": {"temperature": [-1]}}, "grid own, point temperature -1: parameter temperature=-1"),
        ({"vary": {}}, "varies nothing"),
        ({"seeds": 0}, "seeds: input should be greater than or equal to 1"),
        ({"title": None}, "title: input should be a valid string"),
        ({"labels": 5000}, "labels=5000: there are only 1,157"),
        ({"base": {"dataset": "none-such"}}, "none-such"),
        ({"vary": {"dataset": ["digits", "mnist"]}}, "dataset"),
        ({"vary": {"seed": list(range(200)), "lr": list(range(1, 101))}}, "more than 10,000 points"),
        (
            {"claims": [{"say": "x", "better": {"temperature": 3}, "worse": {"temperature": 1.0}}]},
            "about temperature 3",
        ),
        (
            {"claims": [{"say": "x", "beter": {}, "worse": {}}]},
            "unknown part of a claim 'beter'. Did you mean 'better'?",
        ),
        (
            {"claims": [{"say": "x", "better": {"judged_on": "z"}, "worse": {"temperature": 1.0}}]},
            "a claim is judged on z, but features has h",
        ),
        ({"vary": {"temperature": []}}, "vary.temperature: list should have at least 1 item"),
        ({"vary": {"seed": [0, 1]}}, "varies seed: say how many"),
        ({"base": {**TINY, "n_seeds": 3}}, "say how many seeds with seeds"),
        ({"vary": {"lr": [1e-3], "n_seeds": [3]}}, "say how many seeds with seeds"),
        ({"vary": {"lr": [1e-3], "supervised_steps": [1, 2]}}, "varies supervised_steps, which changes nothing"),
        ({"points": [{"ablation_epochs": 1}, {"ablation_epochs": 2}]}, "varies ablation_epochs, which changes nothing"),
        # Points that the data cannot serve are left out of an optional grid; mistakes are not.
        ({"optional": True, "points": [{"temprature": 1}]}, "point temprature 1: unknown parameter"),
        ({"optional": True, "vary": {"n_images": [100_000]}}, "the data can serve none of its points: parameter n_im"),
        (
            {"optional": True, "claims": [{"say": "x", "better": {"temperature": 3}, "worse": {"temperature": 1.0}}]},
            "about temperature 3",
        ),
    ],
)
def test_a_mistake_in_a_grid_is_one_line_and_starts_nothing(write, fresh_runs, capsys, changes, said, no_mnist):
    assert main(["sweep", str(write(**changes))]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(fresh_runs.glob("*/settings.json"))


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTRASTIVE_DATA", str(tmp_path))
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "no network in this test")


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "\x00", "!!python/object/apply:os.system ['true']", ""])
def test_what_is_no_grid_at_all(tmp_path, capsys, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert main(["sweep", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert main(["sweep", "temperatur"]) == 2
    assert "Did you mean 'temperature'?" in capsys.readouterr().err


def test_what_the_command_line_says_comes_before_the_file(write):
    grid = load_grid(write(), {"seeds": "1", "labels": "50", "epochs": "2"})
    assert (grid.seeds, grid.labels) == (1, 50)
    assert {point.settings.epochs for point in grid_points(grid).values()} == {2}


@pytest.mark.parametrize("words", [["-p", "temperature=2"], ["--out", "elsewhere"]])
def test_what_would_change_nothing_is_refused(write, fresh_runs, capsys, words):
    assert main(["sweep", str(write()), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not fresh_runs.exists()


def test_runs_that_cannot_be_written_are_one_line(write, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "file" / "runs"))
    assert main(["sweep", str(write())]) == 2
    assert "Set CONTRASTIVE_RUNS" in capsys.readouterr().err


def test_points_are_named_by_what_they_vary_and_counted_once(write):
    points = [
        {"l2_normalize": False, "temperature": 1.0},
        {"temperature": "1.0", "l2_normalize": False},
        {"head": "none"},
    ]
    found = grid_points(load_grid(write(vary={}, points=points)))
    assert list(found) == ["l2 normalize no, temperature 1", "head none"]


def test_a_dry_run_starts_nothing(write, fresh_runs, capsys):
    assert main(["sweep", str(write()), "--dry-run", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("to do   ") == 4
    assert "4 runs, 4 to do: about" in out
    assert "with 2 jobs at best" in out
    assert not fresh_runs.exists()


def test_the_time_of_a_single_step_is_counted(write):
    settings = grid_points(load_grid(write(), {"batch_size": 512}))["temperature 1"].settings
    costs = {}
    sweep._seconds_of_epoch(settings, costs)
    assert settings.n_images == settings.batch_size  # an epoch has one step
    assert next(iter(costs.values())) > 1e-6


def test_a_grid_is_run_once_and_then_read(write, fresh_runs, capsys, monkeypatch):
    path = write(claims=[{"say": "Warmer is better", "better": {"temperature": 1.0}, "worse": {"temperature": 0.5}}])
    assert main(["sweep", str(path)]) == 0
    out = capsys.readouterr().out
    file = fresh_runs / "sweeps" / "own.json"
    assert out.splitlines()[-1] == str(file)
    assert "Warmer is better: " in out
    assert [line.split("  ")[:3] for line in out.splitlines()[:4]] == [
        [f"{i}/4", f"temperature {t}", f"seed {seed}"]
        for i, (seed, t) in enumerate([(0, "0.5"), (0, "1"), (1, "0.5"), (1, "1")], 1)
    ]
    saved = json.loads(file.read_text())
    assert [point["varied"] for point in saved["points"]] == [{"temperature": 0.5}, {"temperature": 1.0}]
    assert all(set(point["values"]["h"]) == {"0", "1"} for point in saved["points"])
    assert all(
        (fresh_runs / run / "encoder.safetensors").exists() for point in saved["points"] for run in point["runs"]
    )
    monkeypatch.setattr(sweep, "validation_accuracy", None)  # nothing is measured again
    monkeypatch.setattr(importlib.import_module("contrastive.pretrain"), "start", None)  # nor trained
    assert main(["sweep", str(path)]) == 0
    assert json.loads(file.read_text()) == saved


def test_an_interrupted_grid_goes_on(write, fresh_runs, monkeypatch):
    grid, calls = load_grid(write()), []
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


def test_both_kinds_of_features_and_several_processes_give_the_same_numbers(write, fresh_runs, tmp_path, monkeypatch):
    grid = load_grid(write(features=["h", "z"], seeds=1))
    with_one = run_grid(grid, jobs=1, progress=False)
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "others"))
    with_two = run_grid(grid, jobs=2, progress=False)
    assert set(with_one.values) == {"h", "z"}
    for kind in ("h", "z"):
        for name in with_one.points:
            assert with_two.of(name, kind) == with_one.of(name, kind)
    assert with_one.values["h"] != with_one.values["z"]
    assert len(list((tmp_path / "others").glob("*/encoder.safetensors"))) == 2


def test_one_failure_does_not_stop_the_others(write, fresh_runs, capsys, monkeypatch):
    real = sweep.pretrain

    def breaks(settings, progress):
        if settings.temperature == 0.5 and settings.seed == 1:
            raise RunError("the loss is no longer finite")
        if settings.temperature == 1.0 and settings.seed == 0:
            raise RuntimeError("out of\nmemory")
        return real(settings, progress)

    monkeypatch.setattr(sweep, "pretrain", breaks)
    code = main(["sweep", str(write())])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.splitlines() == [
        "FAILED temperature 1, seed 0: RuntimeError: out of memory",
        "FAILED temperature 0.5, seed 1: the loss is no longer finite",
    ]
    saved = json.loads((fresh_runs / "sweeps" / "own.json").read_text())
    assert [list(point["values"]["h"]) for point in saved["points"]] == [["0"], ["1"]]


def test_a_process_that_is_killed_fails_its_own_run_only(write, fresh_runs, capsys, monkeypatch):
    def dies(i, settings, *others):
        if settings.temperature == 0.5:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does for want of memory
        return i, ({"h": 50.0}, False, "", 0.0)

    monkeypatch.setattr(sweep, "_in_worker", dies)
    result = run_grid(load_grid(write(seeds=1)), jobs=2, progress=False)
    assert result.values["h"] == {"temperature 0.5": {}, "temperature 1": {0: 50.0}}
    assert result.failures == [("temperature 0.5", 0, "its process was killed, likely for want of memory")]
    assert "go one at a time" in capsys.readouterr().err


def test_a_training_that_diverges_is_told_of(write, fresh_runs, capsys):
    points = [{"temperature": 1e-30, "l2_normalize": False, "warmup_epochs": 0}, {"temperature": 1.0}]
    assert main(["sweep", str(write(vary={}, points=points, seeds=1))]) == 1
    captured = capsys.readouterr()
    assert "no longer finite at step 1" in captured.err
    assert captured.err.count("\n") == 1
    assert "2/2  temperature 1  seed 0" in captured.out


def test_points_that_the_data_cannot_serve_may_be_left_out(write):
    many = {"n_images": [256, 100_000]}
    with pytest.raises(UserError, match="n_images=100000"):
        grid_points(load_grid(write(vary=many)))
    claim = {"say": "More is better", "better": {"n_images": 100_000}, "worse": {"n_images": 256}}
    grid = load_grid(write(vary=many, optional=True, claims=[claim]))
    points = grid_points(grid)
    assert list(points) == ["n images 256"]
    assert finding(GridResult(grid, points, 100), grid.claims[0]) == "More is better: not run here."


def test_what_a_notebook_shows_of_a_grid(monkeypatch):
    import contrastive.report.grid_section as section

    shown = []
    monkeypatch.setattr(section, "display", lambda *things: shown.extend(things))
    result = result_of({1: [90.0, 91.0], 2: [92.0, 93.1]})
    result.grid = result.grid.model_copy(
        update={"claims": (CLAIM,), "figure": "lines", "x": "temperature", "paper": "It says so."}
    )
    section.show_grid({"g": result}, "g")
    assert "Two is better: so it is here (+2.05" in shown[2].data
    assert "It says so." in shown[2].data
    assert "temperature 2, 92.55 %" in shown[2].data
    section.show_grid({}, "g")
    assert "not among `grids`, or these data cannot serve it" in shown[-1].data
    found = verdict(result, CLAIM)
    answer, numbers = section.grid_answer({"g": result})
    assert answer.startswith("Of 1 findings that were tried here, 1 hold on these images, 0 are the other way round")
    assert numbers[0][0] == "1 of 1"
    again = result.grid.model_copy(update={"claims": (CLAIM.model_copy(update={"say": "The same in other words"}),)})
    other = GridResult(again, result.points, result.n_validation, result.values)
    assert section.grid_answer({"g": result, "other": other})[0].startswith("Of 1 findings")
    assert section.findings_table({"g": result, "other": other}).splitlines()[2:] == [
        f"| Two is better | **confirmed** | {found.points:+.2f} ± {found.interval:.2f} |"
    ]
    assert section.grid_metrics({"g": result})["validation_accuracy[g: temperature 2]"]["values"] == [92.0, 93.1]


def test_the_notebook_fits_a_grid_to_its_report():
    settings = resolve(Settings(preset="smoke", ablation_seeds=2))
    for name in ("left_out", "batch_epochs", "n_images", "width"):
        overrides = sweep.ablation_overrides(name, settings)
        points = grid_points(load_grid(name, overrides))
        assert {point.settings.dataset for point in points.values()} == {"digits"}
        assert name in ("batch_epochs", "n_images") or {p.settings.epochs for p in points.values()} == {1}
        assert overrides["seeds"] == 2


def result_of(values, n_validation=10**9, **claim):
    grid = Grid(name="g", title="t", base=TINY, vary={"temperature": [float(t) for t in values]}, seeds=1)
    points = grid_points(grid)
    return GridResult(
        grid, points, n_validation,
        {"h": {name: dict(enumerate(v)) for name, v in zip(points, values.values(), strict=True)}},
    )  # fmt: skip


CLAIM = Claim(say="Two is better", better={"temperature": 2.0}, worse={"temperature": 1.0})


def test_two_points_differ_by_more_than_noise_just_when_their_verdict_says_so():
    rng = np.random.default_rng(0)
    words = set()
    for shift in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6):
        result = result_of({1: list(rng.normal(90, 0.1, 5)), 2: list(rng.normal(90 + shift, 0.1, 5))})
        found = verdict(result, CLAIM)
        assert (abs(found.points) > least_difference(result)) == (found.word != "undecided")
        words.add(found.word)
    assert words == {"confirmed", "undecided"}


def test_verdicts_are_paired_tests():
    one, two = [90.0, 91.0, 89.5], [90.6, 91.9, 90.1]
    found = verdict(result_of({1: one, 2: two}), CLAIM)
    low, high = scipy_stats.ttest_rel(two, one).confidence_interval(0.95)
    assert found.points == pytest.approx(0.7)
    assert 2 * found.interval == pytest.approx(high - low)
    assert found.word == "confirmed"
    assert verdict(result_of({1: two, 2: one}), CLAIM).word == "refuted"
    assert verdict(result_of({1: one, 2: [90.6, 90.9, 90.1]}), CLAIM).word == "undecided"
    assert "so it is here (+0.70 ± " in finding(result_of({1: one, 2: two}), CLAIM)


def test_the_noise_is_that_of_the_whole_grid():
    values = {1: [90.0, 91.0, 89.5], 2: [90.6, 91.9, 90.1], 3: [88.0, 89.3, 87.2], 4: [91.0, 91.8, 90.8]}
    result = result_of(values)
    # Two-way analysis of variance without interaction, its design written out and solved by least squares.
    y = np.array([v for row in values.values() for v in row])
    points, seeds = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    design = np.column_stack([points[:, None] == np.arange(4), seeds[:, None] == np.arange(1, 3)]).astype(float)
    _, residual, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    error = (residual[0] / (len(y) - rank) * 2 / 3) ** 0.5
    found = verdict(result, CLAIM)
    assert found.interval == pytest.approx(scipy_stats.t.ppf(0.975, len(y) - rank) * error)
    assert found.points == pytest.approx(0.7)


def test_a_run_that_failed_costs_the_verdicts_on_others_little():
    values = {1: [90.0, 91.0, 89.5], 2: [90.6, 91.9, 90.1], 3: [88.0, 89.3, 87.2], 4: [91.0, 91.8]}
    whole = result_of({t: row for t, row in values.items() if len(row) == 3})
    found, result = verdict(result_of(values), CLAIM), result_of(values)
    assert found == verdict(whole, CLAIM)
    assert (
        least_difference(result)
        >= verdict(result, Claim(say="", better={"temperature": 4.0}, worse={"temperature": 2.0})).interval
    )
    assert least_difference(result) > least_difference(whole)  # of a point with fewer runs less is known


def test_one_noisy_pair_of_points_is_not_called_precise():
    # Only one point has all seeds, so there is no noise to pool: what the two share tells it.
    result = result_of({1: [90.0, 92.0], 2: [91.0, 90.0, 90.5]})
    assert least_difference(result) == verdict(result, CLAIM).interval > 1


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


def test_few_validation_images_make_a_verdict_undecided():
    # Seeds that agree by luck: 90 % of 300 images have a standard error of 1.7 points.
    result = result_of({1: [90.0, 90.0], 2: [91.0, 91.0]}, n_validation=300)
    assert verdict(result, CLAIM).word == "undecided"
    assert paired_interval([91.0], [91.0], 8190) == pytest.approx(1.96 * 100 * (0.91 * 0.09 / 8190) ** 0.5)


def test_one_seed_does_not_tell_noise():
    result = result_of({1: [50.0], 2: [92.0]})
    found = verdict(result, CLAIM)
    assert (found.word, found.points) == ("undecided", pytest.approx(42.0))
    assert math.isnan(found.interval)
    assert finding(result, CLAIM).endswith("undecided here (+42.00 points, but one seed does not tell noise).")
    assert summary_sentence(result) == "Best of 2: temperature 2, 92.00 %; one seed does not tell noise."
    result.grid = result.grid.model_copy(update={"claims": (CLAIM,)})
    answer, numbers = grid_section.grid_answer({"grid": result})
    assert "1 are within noise or have one seed, which does not tell it." in answer
    assert numbers[-1][:2] == ("+42.00", "± ?")
    assert math.isnan(least_difference(result))
    assert "so there are no bars" in grid_section.picture(result).light.caption
    # Where other points have more seeds, these tell the noise of a pair with one
    several = result_of({1: [50.0], 2: [92.0], 3: [60.0, 61.0], 4: [70.0, 71.2]})
    assert verdict(several, CLAIM).word == "confirmed"
    assert "| undecided | +42.00 ± ? |" in grid_section.findings_table({"grid": result})


def test_only_seeds_that_both_sides_have_are_compared():
    result = result_of({1: [90.0, 50.0], 2: [92.0]})
    assert verdict(result, CLAIM).points == pytest.approx(2.0)
    assert verdict(result_of({1: [90.0], 2: []}), CLAIM).word == "not run"


def test_the_summary_names_the_best_and_counts_what_is_worse_by_more_than_noise():
    said = summary_sentence(result_of({1: [90.0, 90.1], 2: [92.0, 92.1], 3: [91.9, 92.1]}))
    assert said.startswith("Best of 3: temperature 2, 92.05 %; 1 of the others are worse by more than noise")
    assert summary_sentence(result_of({1: [90.0], 2: []})) == "Too few points were run to say anything."


def test_seeds_are_run_in_rounds(write):
    grid = load_grid(write())
    jobs = grid_jobs(grid, grid_points(grid))
    assert [settings.seed for _, settings in jobs] == [0, 0, 1, 1]
    assert as_json(GridResult(grid, grid_points(grid), 10, {"h": {n: {} for n in grid_points(grid)}}))["failures"] == []


# Stands for `contrastive report`, which other tests run: a report for one point, a failure for the other.
FAKE = """
import pathlib, shutil, sys
if sys.argv[3] == "1.0":
    sys.exit("error: no luck")
pathlib.Path(sys.argv[2]).mkdir(parents=True)
shutil.copy(sys.argv[1], sys.argv[2] + "/results.json")
"""


def test_a_report_for_each_point(write, tmp_path, capsys, monkeypatch):
    def command(given, folder):
        settings = resolve(make_settings(**given)).model_dump(mode="json")
        write_json(tmp_path / f"{folder.name}.json", {"status": "ok", "settings": settings})
        made = str(tmp_path / f"{folder.name}.json")
        return [sys.executable, "-c", FAKE, made, str(folder), str(given["temperature"])]

    monkeypatch.setattr(grid_reports, "report_command", command)
    words = ["sweep", str(write()), "--reports", "--out", str(tmp_path / "out"), "--jobs", "2"]
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
    write_json(results, {"status": "failed", "settings": json.loads(results.read_text())["settings"]})
    main(words)
    assert "done before" not in capsys.readouterr().out


def test_a_point_is_asked_for_as_a_report_reads_it():
    given = {"l2_normalize": False, "lr": "1e-3", "second_augment": None}
    words = grid_reports.report_command(given, Path("x"))[3:]
    only = ["--only", "01_pretrain", "--only", "02_linear_eval"]
    assert words == ["report", "--out", "x", *only, "-p", "l2_normalize=false", "-p", "lr=1e-3"]


def test_reports_are_told_apart_by_what_is_measured_too(write, fresh_runs, capsys):
    path = write(vary={"supervised_steps": [1, 2]}, labels=1000)
    assert list(grid_points(load_grid(path), reports=True)) == ["supervised steps 1", "supervised steps 2"]
    assert main(["sweep", str(path), "--reports", "--dry-run"]) == 0
    assert "\n2 runs, 2 to do" in capsys.readouterr().out  # of two seeds, for both points
    same = write(vary={"augment": ["digits", "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0"]})
    assert len(grid_points(load_grid(same), reports=True)) == 1
    with pytest.raises(UserError, match="varies grids, which changes nothing of its points"):
        grid_points(load_grid(write(vary={"grids": ["left_out", "head"]})), reports=True)


def test_a_null_that_a_report_would_not_have_is_refused(write, tmp_path, capsys):
    path = write(base={**TINY, "preset": "digits", "dataset": "digits"}, vary={"view_size": [None, 24]})
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert main(["sweep", str(path), "--reports", "--out", str(tmp_path / "out")]) == 2
    assert "view_size is null, which in a report stands for the preset's value, and digits has 24" in (
        capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("given", "said"), [("n_seeds=5", "-p seeds=5"), ("supervised_steps=5", "--reports"), ("grids=head", "nothing")]
)
def test_parameters_that_would_change_nothing_are_refused(write, capsys, given, said):
    assert main(["sweep", str(write()), "-p", given, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_values_that_differ_little_are_two_points(write):
    names = list(grid_points(load_grid(write(vary={"temperature": [0.5, 0.5000001]}))))
    assert names == ["temperature 0.5", "temperature 0.5000001"]


def test_ctrl_c_stops_the_reports_too(write, tmp_path, capsys, monkeypatch):
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
    assert main(["sweep", str(write()), "--reports", "--out", str(tmp_path / "out")]) == 130
    thread.join()
    assert time.monotonic() - started < 50
    assert "the same command goes on" in capsys.readouterr().err


def test_unknown_grids_of_a_report_are_refused():
    with pytest.raises(UserError, match="Did you mean 'left_out'"):
        make_settings(grids="left_oud")
    assert make_settings(grids="temperature, head").grids == ("temperature", "head")


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
