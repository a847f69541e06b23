"""Grids over few images: what a grid alone says shrinks, asked ones are refused, and all points stay comparable."""

import json
import re

import numpy as np
import pytest

from contrastive import Settings, UserError, resolve
from contrastive.sweeps import command, reports
from contrastive.sweeps.grids import grid_points, load_grid, with_labels_that_are_there
from contrastive.sweeps.reports import report_command
from contrastive.sweeps.runner import ablation_overrides

from .few_images import images_of


@pytest.fixture
def small_npz(tmp_path):
    """60 training images of two classes in a file."""
    images = images_of()
    parts = {f"{p}_{what}": getattr(images, p if what == "images" else f"{p}_labels").numpy()
             for p in ("train", "test") for what in ("images", "labels")}  # fmt: skip
    np.savez(tmp_path / "small.npz", **parts)
    return tmp_path / "small.npz"


@pytest.mark.parametrize("name", ["left_out", "temperature", "head", "losses", "jitter_strength", "width"])
def test_a_grid_that_comes_along_starts_on_60_images(small_npz, name):
    grid = load_grid(name, {"dataset": str(small_npz)})
    fitting = with_labels_that_are_there(grid)
    assert fitting.labels == 48 < grid.labels
    points = grid_points(fitting)
    for point in points.values():
        assert point.settings.data.n_images == 48
        assert point.settings.optimiser.batch_size == 12
    with pytest.raises(UserError, match=r"there are only 48 beside validation"):
        grid_points(grid)


def test_a_sweep_over_60_images_runs_and_says_what_shrank(small_npz, fresh_runs, capsys):
    given = {"dataset": str(small_npz), "epochs": 1, "base_channels": 1, "seeds": 1}
    command.dry_run(load_grid("flip_blur", given), jobs=1)
    shown, said = capsys.readouterr()
    assert "4 runs, 4 to do" in shown
    assert command.sweep(load_grid("flip_blur", given), jobs=1) == 0
    shown, again = capsys.readouterr()
    assert "of a linear probe on h with 48 labels" in shown
    assert said == again
    assert said.splitlines() == [
        "NOTE: There are few images, so some numbers of the preset are others: batch_size=12, ablation_labels=48.",
        "NOTE: There are few labels, so each probe has labels=48, rather than 1000.",
    ]
    written = json.loads((fresh_runs / "sweeps" / "flip_blur.json").read_text())
    assert written["grid"]["labels"] == 48
    assert "asked" not in written["grid"]  # a set, whose order changes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": 49}, "labels=49: there are only 48 beside validation"),
        ({"n_images": 49}, "parameter n_images=49"),
        ({"batch_size": 49}, "parameter batch_size=49"),
    ],
)
def test_what_was_asked_of_a_grid_is_refused(small_npz, given, said):
    grid = with_labels_that_are_there(load_grid("flip_blur", {"dataset": str(small_npz), **given}))
    with pytest.raises(UserError, match=re.escape(said)):
        grid_points(grid)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": 100}, "labels=100: there are only 48 beside validation"),
        ({"base": {"batch_size": 49}}, "parameter batch_size=49"),
        ({"base": {"n_images": 512}}, "parameter n_images=512"),
    ],
)
def test_a_file_of_ones_own_is_asked_for_as_a_whole(small_npz, write_grid, changes, said):
    content = {"labels": 40, "base": {}} | changes
    path = write_grid(**content | {"base": {"preset": "smoke", "dataset": str(small_npz), **content["base"]}})
    with pytest.raises(UserError, match=re.escape(said)):
        grid_points(with_labels_that_are_there(load_grid(path)))


def test_a_grid_cannot_say_what_was_asked(write_grid):
    with pytest.raises(UserError, match="unknown part of a grid 'asked'"):
        load_grid(write_grid(asked=["labels"]))


def test_points_with_fewer_images_have_the_batch_of_the_others():
    # The grid's epochs make as many steps of each number of images only if all have its batch.
    points = grid_points(load_grid("n_images", {"dataset": "sklearn_digits", "labels": 100}))
    steps = [
        p.settings.optimiser.epochs * (p.settings.data.n_images // p.settings.optimiser.batch_size)
        for p in points.values()
    ]
    assert {p.settings.optimiser.batch_size for p in points.values()} == {64}
    assert len(steps) > 2
    assert max(steps) - min(steps) < 16


def test_ablations_are_the_runs_of_a_sweep(small_npz):
    own = dict(dataset=str(small_npz), ablation_epochs=10, ablation_base_channels=12)
    settings, _ = resolve(Settings(preset="quick", **own))
    there = grid_points(load_grid("flip_blur", ablation_overrides("flip_blur", settings)))
    given = {"dataset": str(small_npz), "epochs": 10}
    swept = grid_points(with_labels_that_are_there(load_grid("flip_blur", given)))
    names = [[point.settings.run_name for point in points.values()] for points in (there, swept)]
    assert names[0] == names[1]


def test_how_images_are_read_may_be_varied_and_which_they_are_may_not(tmp_path, write_grid):
    images = images_of(500, side=40)  # so many that a test split is drawn
    np.savez(tmp_path / "plain.npz", images=images.train.numpy(), labels=images.train_labels.numpy())
    base = {"preset": "smoke", "dataset": str(tmp_path / "plain.npz")}
    path = write_grid(base=base, vary={"image_size": [16, 24]}, labels=30)
    points = grid_points(load_grid(path))
    assert len({point.settings.run_name for point in points.values()}) == 2
    path = write_grid(base=base, vary={"split_seed": [0, 1]}, labels=30)
    with pytest.raises(UserError, match="all points have to be of the same images"):
        grid_points(load_grid(path))


def test_reports_of_a_grid_ask_for_what_its_points_came_to_be(small_npz, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reports._ReportRunner, "report", lambda self, settings, folder, words: asked.append(words))
    grid = load_grid("flip_blur", {"dataset": str(small_npz)})
    assert reports.report_grid(grid, 1, tmp_path) == 0
    assert len(asked) == 4
    for words, point in zip(asked, grid_points(grid, reports=True).values(), strict=True):
        given = dict(word.split("=", 1) for word in words if "=" in word)
        assert given["batch_size"] == "12"
        again, _ = resolve(Settings(**given))
        assert again.run_name == point.settings.run_name
    assert report_command({"budgets": [10, 20], "seed": None}, tmp_path)[-2:] == ["-p", "budgets=10,20"]
