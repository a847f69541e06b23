"""Grids of runs: what a file may say, what is refused, which points it has."""

from pathlib import Path

import numpy as np
import pytest

from contrastive import UserError
from contrastive.__main__ import main
from contrastive.settings import Settings, grids_folder
from contrastive.sweeps.grids import grid_points, load_grid
from contrastive.sweeps.runner import ablation_overrides
from contrastive.sweeps.verdicts import GridResult, finding
from contrastive.training import resolve

from .conftest import HAVE_MNIST, TINY_RUN


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


def test_the_grid_in_the_documentation_is_whole(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
    (tmp_path / "my.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
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
        (
            {"base": {**TINY_RUN, "method": "byol"}},
            "temperature=0.5 belongs to method simclr, mocov2, mocov3, supcon or",
        ),
        ({"base": {**TINY_RUN, "encoder": "resnet18"}}, "base_channels=2 belongs to encoder cnn or resnet9, and"),
        ({"vary": {"method": ["simclr", "byoll"]}}, "point method byoll: unknown method 'byoll'. Did you mean 'byol'?"),
        ({"vary": {"temperature": []}}, "vary.temperature: list should have at least 1 item"),
        ({"vary": {"seed": [0, 1]}}, "varies seed: say how many"),
        ({"base": {**TINY_RUN, "n_seeds": 3}}, "say how many seeds with seeds"),
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
def test_a_mistake_in_a_grid_is_one_line_and_starts_nothing(write_grid, fresh_runs, capsys, changes, said, no_mnist):
    assert main(["sweep", str(write_grid(**changes))]) == 2
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


def test_what_the_command_line_says_comes_before_the_file(write_grid):
    grid = load_grid(write_grid(), {"seeds": "1", "labels": "50", "epochs": "2"})
    assert (grid.seeds, grid.labels) == (1, 50)
    assert {point.settings.optimiser.epochs for point in grid_points(grid).values()} == {2}


def test_what_some_points_vary_is_not_changed_for_the_others(write_grid):
    points = [{"augment": "crop"}, {"temperature": 0.2}]
    with pytest.raises(UserError, match="varies temperature itself"):
        load_grid(write_grid(vary={}, points=points), {"temperature": 0.2})


def test_values_may_have_names(write_grid):
    path = write_grid(vary={"augment": ["crop", "crop+rotate:30"]}, names={"crop+rotate:30": "turned far"})
    assert list(grid_points(load_grid(path))) == ["augment crop", "turned far"]


def test_a_base_loses_what_belongs_to_a_method_or_an_encoder_that_was_chosen_against(write_grid):
    path = write_grid(base={**TINY_RUN, "temperature": 0.5, "projection_dim": 8}, vary={"lr": [1e-3, 2e-3]})
    assert load_grid(path, {"method": "byol"}).base == {**TINY_RUN, "method": "byol"}
    assert load_grid(path, {"method": "simclr", "encoder": "resnet18"}).base == {
        "preset": "smoke", "epochs": 1, "batch_size": 128, "temperature": 0.5, "projection_dim": 8, "method": "simclr",
        "encoder": "resnet18",
    }  # fmt: skip
    # MoCo has parameters of these names, which mean something else
    points = grid_points(load_grid(path, {"method": "mocov2"})).values()
    usual = Settings(preset="smoke", method="mocov2").method
    assert {(p.settings.method.temperature, p.settings.method.projection_dim) for p in points} == {
        (usual.temperature, usual.projection_dim)
    }
    # What the command line says of the new one stays
    assert load_grid(path, {"method": "mocov2", "temperature": "0.3"}).base["temperature"] == "0.3"
    with pytest.raises(UserError, match=r"belongs to method simclr, mocov2, .* or swav, and byol was chosen"):
        grid_points(load_grid(path, {"method": "byol", "temperature": "0.3"}))
    with pytest.raises(UserError, match="Did you mean 'byol'"):
        load_grid(path, {"method": "byoll"})


def test_methods_and_encoders_can_be_varied_with_their_own_parameters(write_grid):
    points = [{"method": "simclr", "temperature": 0.2}, {"method": "mocov2", "queue_size": 256}, {"method": "byol"},
              {"encoder": "resnet18", "stem": "small"}]  # fmt: skip
    base = {name: value for name, value in TINY_RUN.items() if name != "base_channels"}
    found = grid_points(load_grid(write_grid(base=base, vary={}, points=points)))
    assert list(found) == [
        "method simclr, temperature 0.2", "method mocov2, queue size 256", "method byol",
        "encoder resnet18, stem small",
    ]  # fmt: skip
    assert len({point.settings.run_name for point in found.values()}) == 4
    assert found["encoder resnet18, stem small"].settings.encoder.stem == "small"


ABLATIONS = ("left_out", "temperature", "width", "batch_epochs", "n_images")


@pytest.mark.parametrize(
    ("chosen", "refused"),
    [
        ({}, {}),
        ({"method": "byol"}, {"temperature": "l2_normalize=True belongs to method simclr, and byol was chosen"}),
        ({"method": "mocov2"}, {"temperature": "l2_normalize=True belongs to method simclr, and mocov2 was chosen"}),
        (
            {"encoder": "resnet18"},
            {"width": "base_channels=4 belongs to encoder cnn or resnet9, and"},
        ),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_notebook_fits_its_grids_to_its_report(chosen, refused):
    settings, _ = resolve(Settings(preset="smoke", ablation_seeds=2, ablation_base_channels=3, seed=5, **chosen))
    for name in ABLATIONS:
        overrides = ablation_overrides(name, settings)
        assert (overrides["seeds"], overrides["labels"], overrides["seed"]) == (2, 300, 5)
        assert overrides.get("base_channels") == (None if chosen.get("encoder") or name == "width" else 3)
        grid = load_grid(name, overrides)
        if name in refused:
            with pytest.raises(UserError, match=f"^grid {name}, point .*: parameter {refused[name]}"):
                grid_points(grid)
            continue
        points = [point.settings for point in grid_points(grid).values()]
        assert {p.data.dataset for p in points} == {"sklearn_digits"}
        assert {p.method.name for p in points} == {chosen.get("method", "simclr")}
        assert {p.encoder.name for p in points} == {chosen.get("encoder", "cnn")}
        assert name in ("batch_epochs", "n_images") or {p.optimiser.epochs for p in points} == {1}
        if name == "width":
            assert {p.encoder.base_channels for p in points} == {4, 8, 16, 32}


@pytest.mark.parametrize("words", [["-p", "temperature=2"], ["--out", "elsewhere"]])
def test_what_would_change_nothing_is_refused(write_grid, fresh_runs, capsys, words):
    assert main(["sweep", str(write_grid()), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not fresh_runs.exists()


@pytest.mark.parametrize(
    ("given", "said"), [("n_seeds=5", "-p seeds=5"), ("supervised_steps=5", "--reports"), ("grids=head", "nothing")]
)
def test_parameters_that_would_change_nothing_are_refused(write_grid, capsys, given, said):
    assert main(["sweep", str(write_grid()), "-p", given, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_points_are_named_by_what_they_vary_and_counted_once(write_grid):
    points = [
        {"l2_normalize": False, "temperature": 1.0},
        {"temperature": "1.0", "l2_normalize": False},
        {"head": "none"},
    ]
    found = grid_points(load_grid(write_grid(vary={}, points=points)))
    assert list(found) == ["l2 normalize no, temperature 1", "head none"]


def test_values_that_differ_little_are_two_points(write_grid):
    names = list(grid_points(load_grid(write_grid(vary={"temperature": [0.5, 0.5000001]}))))
    assert names == ["temperature 0.5", "temperature 0.5000001"]


def test_points_that_the_data_cannot_serve_may_be_left_out(write_grid):
    many = {"n_images": [256, 100_000]}
    with pytest.raises(UserError, match="n_images=100000"):
        grid_points(load_grid(write_grid(vary=many)))
    claim = {"say": "More is better", "better": {"n_images": 100_000}, "worse": {"n_images": 256}}
    grid = load_grid(write_grid(vary=many, optional=True, claims=[claim]))
    points = grid_points(grid)
    assert list(points) == ["n images 256"]
    assert finding(GridResult(grid, points, 100), grid.claims[0]) == "More is better: not run here."


def test_unknown_grids_of_a_report_are_refused():
    with pytest.raises(UserError, match="Did you mean 'left_out'"):
        Settings(grids="left_oud")
    assert Settings(grids="temperature, head").ablations.grids == ("temperature", "head")
