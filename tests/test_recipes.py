"""What suits each kind of images, small views, and what a log says of a collapse."""

import dataclasses

import pytest
import torch

from contrastive import Settings, load_images, methods, notebook_settings, resolve
from contrastive.augment import spell_policy, with_smaller_crops
from contrastive.evaluation.soundness import history_checks
from contrastive.settings import PRESETS, recipe_values
from contrastive.sweeps.grids import Grid, settings_of

from .trainings import begun

CHOSEN = ("cnn", "simclr")


@pytest.fixture(scope="module")
def of_kind():
    """The bundled digits, made images of a kind."""
    digits = load_images("digits")
    grey = dataclasses.replace(digits, handwriting=False)
    colours = {name: getattr(grey, name).expand(-1, 3, -1, -1) for name in ("train", "test")}
    photos = dataclasses.replace(grey, mean=grey.mean * 3, std=grey.std * 3, **colours)
    return {"digits": digits, "grey": grey, "photos": photos}


def test_kinds_are_told_by_colours_and_handwriting(of_kind):
    assert {name: images.kind for name, images in of_kind.items()} == {name: name for name in of_kind}


@pytest.mark.parametrize("kind", ["digits", "grey", "photos"])
def test_preset_quick_takes_what_suits_the_images(of_kind, kind):
    usual, (found, _) = Settings().flat(), resolve(Settings(), of_kind[kind])
    recipe = recipe_values(kind, CHOSEN)
    for name in recipe_values("photos", CHOSEN).keys() - {"epochs"}:  # of few images there are more
        assert found.flat()[name] == recipe.get(name, usual[name])
    assert (found.method.temperature, found.optimiser.lr) == ((0.2, 2e-3) if kind == "photos" else (1.0, 5e-3))
    again, _ = resolve(found, of_kind[kind])
    assert again == found


def test_what_was_asked_for_and_other_presets_stay(of_kind):
    asked = dict(lr=1e-3, temperature=1.0, batch_size=128)
    found, _ = resolve(Settings(**asked), of_kind["photos"])
    assert {name: found.flat()[name] for name in asked} == asked
    full, _ = resolve(Settings(preset="full"), of_kind["photos"])
    assert (full.optimiser.lr, full.method.temperature) == (1e-3, 0.5)
    smoke, _ = resolve(Settings(preset="smoke"), of_kind["photos"])
    assert (smoke.optimiser.lr, smoke.optimiser.batch_size, smoke.method.temperature) == (5e-3, 128, 1.0)
    other, _ = resolve(Settings(method="byol"), of_kind["photos"])
    assert other.optimiser.lr == 2e-3
    assert "temperature" not in other.flat()


def test_a_grids_base_stays(of_kind):
    grid = Grid(title="one", base={"temperature": 1.0, "lr": 3e-3, "batch_size": 64}, vary={"head": ["mlp", "linear"]})
    found, _ = resolve(settings_of(grid, {"head": "linear"}), of_kind["photos"])
    assert (found.method.temperature, found.optimiser.lr, found.optimiser.batch_size) == (1.0, 3e-3, 64)


def test_what_a_notebook_imports_is_no_parameter():
    assert notebook_settings({"methods": methods, "encoders": None, "lr": 2e-3}) == Settings(lr=2e-3)


def test_presets_photos_and_xray_have_the_policy_of_their_kind():
    assert {name: PRESETS[name]["augment"] for name in ("photos", "xray")} == {"photos": "natural", "xray": "grey"}
    assert Settings(preset="photos").method.temperature == recipe_values("photos", CHOSEN)["temperature"]
    assert not [op for op in ("vflip", "hue") if op in spell_policy("grey")]


@pytest.mark.parametrize(
    ("policy", "crop"), [("simclr", "0.05:0.4"), ("handwriting", "0.25:0.5"), ("grey", "0.3:0.6"), ("none", "0.05:0.4")]
)
def test_small_views_have_smaller_crops_and_all_else(policy, crop):
    small = with_smaller_crops(policy).split("+")
    assert f"crop:{crop}" in small
    others = [term for term in spell_policy(policy).split("+") if not term.startswith(("crop", "none"))]
    assert [term for term in small if not term.startswith("crop")] == others


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_too_few_prototypes_in_use_are_a_failed_check_that_names_them(name):
    method = begun(method=name, local_views=0, n_images=64, batch_size=16, base_channels=2).method
    healthy = {"loss": 0.5, "chance_loss": 3.0, "lowest_loss": 0.0, **dict.fromkeys(method.LOG, 0.5)}
    assert all(item["passed"] for item in history_checks(method, healthy, 16))
    failed = [item for item in history_checks(method, healthy | {"in_use": 0.01}, 16) if not item["passed"]]
    assert [(item["name"], item["seen"]) for item in failed] == [(method.LOG["in_use"].label, "1.0 % of prototypes")]
    assert torch.tensor(0.01) < method.LOG["in_use"].least
