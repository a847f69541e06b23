"""What names a run: what decides its weights, and nothing else."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

import contrastive
from contrastive import Settings
from contrastive.augment import POLICIES
from contrastive.settings import ENCODERS, METHODS, Component, Float, decisive_parameters, model, parameters

# Every component's VERSION and defaults. A default that changes gives the same parameters other weights (a name tells
# only what differs from the defaults): raise VERSION with it, then both here. A new parameter is a new entry, and
# renames nothing.
COMPONENTS = {
    "DataSettings": (
        1,
        {
            "dataset": "auto", "n_images": None, "image_size": None, "fit": "crop", "background": "white",
            "window": "auto", "label": None, "group": None, "split_seed": 0, "skip_damaged": False,
            "drop_copies": False, "follow_links": False,
        },
    ),
    "ViewSettings": (1, {"augment": "auto", "second_augment": None, "view_size": None}),
    "OptimiserSettings": (
        1,
        {
            "name": "adam", "batch_size": 128, "epochs": 15, "lr": 5e-3, "schedule": "cosine", "warmup_epochs": 1,
            "weight_decay": 1e-6,
        },
    ),
    "RuntimeSettings": (
        1, {"seed": 0, "precision": "auto", "device": "auto", "checkpoint_seconds": 30, "cuda_graph": True},
    ),
    "CNNSettings": (1, {"name": "cnn", "base_channels": 32, "pool": "none"}),
    "ResNetSettings": (1, {"name": "cnn", "stem": "auto"}),
    "SimCLRSettings": (
        1,
        {
            "name": "simclr", "loss": "nt_xent", "l2_normalize": True, "temperature": 1.0, "head": "mlp",
            "projection_dim": 128,
        },
    ),
    "BYOLSettings": (1, {"name": "simclr", "momentum": 0.99, "hidden_dim": 512, "projection_dim": 128}),
    "MoCoSettings": (
        1,
        {
            "name": "simclr", "temperature": 0.2, "momentum": 0.99, "queue_size": 2048, "head": "mlp",
            "projection_dim": 128,
        },
    ),
    "SupervisedSettings": (1, {"name": "simclr"}),
    "EvaluationSettings": (
        5,
        {
            "budgets": None, "label_draws": 1, "budget_draw": "balanced", "level": "basic", "transfer": None,
            "general": "auto", "weights": None, "general_size": None, "supervised_steps": 600,
        },
    ),
    "ReportSettings": (1, {"n_seeds": 1, "label_first": 50, "map_images": 2000}),
    "AblationSettings": (
        1,
        {
            "grids": ("left_out", "temperature"), "ablation_epochs": 4, "ablation_base_channels": 12,
            "ablation_labels": 1000, "ablation_seeds": 2, "ablation_jobs": None,
        },
    ),
}  # fmt: skip

# Names that runs have on disks and in reports. One that changes makes people train again what they have: only a raised
# VERSION is a reason.
NAMES = [
    (dict(preset="smoke", dataset="sklearn_digits", n_images=512), "sklearn_digits-simclr-cnn-4ep-s0-b66386f4"),
    (dict(), "mnist-simclr-cnn-15ep-s0-a947bf63"),
    (dict(preset="digits"), "mnist-simclr-cnn-150ep-s0-992a9e88"),
    (dict(preset="full", augment="simclr"), "mnist-simclr-cnn-500ep-s0-a14f27f2"),
    (dict(method="simclr", encoder="resnet18"), "mnist-simclr-resnet18-15ep-s0-75ba7eb8"),
    (dict(method="byol", encoder="cnn"), "mnist-byol-cnn-15ep-s0-d1b31232"),
    (dict(method="byol", encoder="resnet18"), "mnist-byol-resnet18-15ep-s0-654d6c2d"),
    (dict(method="mocov2", encoder="cnn"), "mnist-mocov2-cnn-15ep-s0-893e2ca9"),
    (dict(method="mocov2", encoder="resnet18"), "mnist-mocov2-resnet18-15ep-s0-09ff81c8"),
    (dict(method="supervised", encoder="cnn"), "mnist-supervised-cnn-15ep-s0-3efcdb4d"),
    (dict(method="supervised", encoder="resnet18"), "mnist-supervised-resnet18-15ep-s0-e9d9031f"),
    (
        dict(
            optimiser="sgd", lr=0.1, seed=7, device="cuda:3", precision="bfloat16", view_size=24, second_augment="none"
        ),
        "mnist-simclr-cnn-15ep-s7-4971a722",
    ),
]

# Each parameter, with another value than those of `known` have; where it needs one, with the choice that it belongs to
OTHERS = {
    "n_images": 4000, "augment": "simclr", "second_augment": "none", "view_size": 24,
    "encoder": "resnet18", "base_channels": 31, "pool": "avg", "stem": "small",
    "method": "mocov2", "loss": "nt_logistic", "l2_normalize": False, "temperature": 0.31, "head": "linear",
    "projection_dim": 64, "momentum": 0.5, "hidden_dim": 64, "queue_size": 64,
    "optimiser": "sgd", "batch_size": 64, "epochs": 16, "lr": 1e-3, "schedule": "constant", "warmup_epochs": 2,
    "weight_decay": 1e-3, "seed": 1, "precision": "bfloat16", "device": "cuda",
}  # fmt: skip
# How images are read names no run: their checksum does, which follows from it.
READING = {
    "dataset": "/elsewhere/images", "image_size": 32, "fit": "pad", "background": "black", "window": "0:4095",
    "label": "effusion",
    "group": r"(p\d+)", "split_seed": 1, "skip_damaged": True, "drop_copies": True, "follow_links": True,
}  # fmt: skip
WITHOUT_WEIGHT = READING | {
    "preset": "full", "checkpoint_seconds": 1, "cuda_graph": False, "budgets": (10, 20), "label_draws": 3,
    "budget_draw": "random",
    "evaluation": "full", "transfer": "mnist", "general": "none", "weights": "/elsewhere/x.pth", "general_size": 64,
    "supervised_steps": 7, "n_seeds": 3, "label_first": 5, "map_images": 100,
    "grids": ("temperature",), "ablation_epochs": 2, "ablation_base_channels": 3, "ablation_labels": 30,
    "ablation_seeds": 1, "ablation_jobs": 2,
}  # fmt: skip


def known(sha256="0" * 64, **given):
    """Settings as they are once they are resolved: of images with that checksum, on a known machine."""
    resolved = {"dataset": "mnist", "n_images": 5000, "precision": "float32", "device": "cpu", "augment": "handwriting"}
    return Settings(**(resolved | given)).model_copy(update={"data_sha256": sha256})


def digest(settings):
    return settings.run_name.rpartition("-")[2]


def classes():
    """Every component's class there is: part of Settings -> its classes."""
    found = {part: [cls] for part, cls in model.FIXED.items()}
    return found | {part: [kind[name].Parameters for name in kind] for part, kind in model.CHOICES.items()}


def chosen_with(name):
    """A method and an encoder that have a parameter."""
    for method in METHODS:
        for encoder in ENCODERS:
            if name in Settings(method=method, encoder=encoder).flat():
                return {"method": method, "encoder": encoder}
    raise KeyError(name)


# --- Golden -----------------------------------------------------------------------------------------------------


def test_defaults_change_with_their_version_only():
    found = {
        cls.__name__: (cls.VERSION, {name: field.default for name, field in cls.model_fields.items()})
        for part in classes().values()
        for cls in part
        if cls.__module__.startswith("contrastive.")
    }
    assert found == COMPONENTS


@pytest.mark.parametrize(("given", "name"), NAMES)
def test_golden_names_of_runs(given, name):
    assert known(**given).run_name == name


def test_the_identity_is_canonical_json():
    settings = known(method="byol", momentum=0.5, seed=7)
    assert json.loads(settings.identity) == {
        "data": {"version": 1, "n_images": 5000, "sha256": "0" * 64},
        "views": {"version": 1, "augment": "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0"},
        "encoder": {"version": 1, "name": "cnn"},
        "method": {"version": 1, "name": "byol", "momentum": 0.5},
        "optimiser": {"version": 1, "name": "adam"},
        "runtime": {"version": 1, "seed": 7, "precision": "float32", "device": "cpu"},
    }
    assert settings.identity == json.dumps(json.loads(settings.identity), sort_keys=True)


# --- What renames a run, and what does not -------------------------------------------------------------------------


def test_all_parameters_are_tried_below():
    assert {*OTHERS, *WITHOUT_WEIGHT} == {*parameters()}
    assert {*OTHERS, *READING} == decisive_parameters()
    assert {*READING} == model.FIXED["data"].LOOSE


@pytest.mark.parametrize("name", OTHERS)
def test_a_parameter_that_decides_weights_renames_the_run(name):
    before = known(**chosen_with(name))
    after = before.replace(**{name: OTHERS[name]})
    assert after.flat()[name] != before.flat()[name]
    assert digest(after) != digest(before)
    assert before.replace(**{name: before.flat()[name]}).run_name == before.run_name


@pytest.mark.parametrize("name", WITHOUT_WEIGHT)
def test_a_parameter_that_decides_no_weights_does_not(name):
    after = known(**{**known().flat(), name: WITHOUT_WEIGHT[name]})
    assert after.flat()[name] != known().flat()[name]
    assert digest(after) == digest(known())
    assert (after.run_name == known().run_name) == (name != "dataset")


def test_which_gpu_it_was_does_not_matter():
    one, other, processor = (known(device=device) for device in ("cuda", "cuda:1", "cpu"))
    assert one.run_name == other.run_name != processor.run_name


def test_other_images_are_another_run():
    assert digest(known("1" * 64)) != digest(known())


def test_text_and_numbers_of_equal_value_name_the_same_run():
    assert known(lr="1e-3", epochs="16", temperature="2").run_name == known(lr=0.001, epochs=16, temperature=2).run_name


def test_equal_policies_name_the_same_run():
    for words in ("simclr", POLICIES["simclr"], "natural+blur", "simclr-crop+crop:.08:1", "simclr+crop"):
        assert known(augment=words, second_augment=words).run_name == known(
            augment="simclr", second_augment="simclr"
        ).run_name  # fmt: skip
    assert known(augment="rotate+crop").run_name == known(augment="crop+rotate").run_name
    assert known(augment="simclr").run_name != known(augment="simclr+hflip:0.4").run_name


def test_names_are_for_people_and_for_any_file_system():
    name = known(dataset="/tmp/../a b<c>\n", method="mocov2", encoder="resnet18", epochs=3, seed=4).run_name
    assert re.fullmatch(r"a_b_c__-mocov2-resnet18-3ep-s4-[0-9a-f]{8}", name)
    assert known(dataset="/").run_name.startswith("data-")
    assert len(known(dataset="x" * 300).run_name) < 80


# --- What changes in the code ------------------------------------------------------------------------------------


def added(cls, kind, default):
    """The class with one more parameter, as if somebody had written it there."""
    body = {"__annotations__": {"added_later": kind}, "added_later": Field(default, description="new")}
    return type(cls)(cls.__name__, (cls,), {**body, "__module__": cls.__module__})


EVERY_CLASS = [(part, cls) for part, of_part in classes().items() for cls in of_part]


@pytest.mark.parametrize(("part", "cls"), EVERY_CLASS)
@pytest.mark.parametrize(
    ("kind", "default", "other"),
    [(Float, 0.5, 0.6), (Float, 1, 2), (str | None, None, "x"), (tuple[int, ...], (1, 2), (3,)), (bool, True, False)],
    ids=["float", "whole float", "none", "tuple", "bool"],
)
def test_a_new_parameter_with_a_default_renames_no_run(monkeypatch, part, cls, kind, default, other):
    before = {"seed": 3}
    if registry := model.CHOICES.get(part):
        before[part] = next(name for name in registry if registry[name].Parameters is cls)
    names = [known(**before).run_name, known(**before, epochs=2).run_name]
    if registry:
        monkeypatch.setattr(registry[before[part]], "Parameters", added(cls, kind, default))
    else:
        monkeypatch.setitem(model.FIXED, part, added(cls, kind, default))
    assert known(**before).flat()["added_later"] == default
    assert [known(**before).run_name, known(**before, epochs=2).run_name] == names
    assert (known(**before, added_later=other).run_name != names[0]) == (part in model.DECISIVE)


@pytest.mark.parametrize(("part", "cls"), EVERY_CLASS)
def test_a_raised_version_renames_the_runs_that_it_is_of(monkeypatch, part, cls):
    choices = [{"method": method, "encoder": encoder} for method in METHODS for encoder in ENCODERS]
    before = [known(**choice).run_name for choice in choices]
    monkeypatch.setattr(cls, "VERSION", cls.VERSION + 1)
    for choice, name in zip(choices, before, strict=True):
        of_it = part in model.DECISIVE and isinstance(getattr(known(**choice), part), cls)
        assert (known(**choice).run_name != name) == of_it


def test_versions_are_each_components_own():
    for part in classes().values():
        for cls in part:
            assert issubclass(cls, Component)
            assert isinstance(cls.VERSION, int)


NAMES_OF_A_COPY = """
import contrastive, json, sys
from contrastive import Settings
settings = [Settings(**given).model_copy(update={"data_sha256": "0" * 64}) for given in json.loads(sys.argv[1])]
print(json.dumps([contrastive.__file__, *(each.run_name for each in settings)]))
"""


def test_no_word_of_the_source_names_a_run(tmp_path):
    # A copy of the package with other docstrings and comments, in which modules bear other names
    copy = tmp_path / "contrastive"
    shutil.copytree(Path(contrastive.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    moves = {"methods/byol": "own_latent", "losses/ntxent": "cross_entropy", "augment/operations": "pixels"}
    for module, new in moves.items():
        (copy / f"{module}.py").rename((copy / module).with_name(f"{new}.py"))
    for path in copy.rglob("*.py"):
        text = path.read_text().replace('"""', '"""Edited. ', 1) + "\n# edited, too\n"
        for module, new in moves.items():
            old = module.rpartition("/")[2]
            text = re.sub(rf"(from \.[\w.]*){old} import", rf"\g<1>{new} import", text)
            text = re.sub(rf"from \. import (.*)\b{old}\b", rf"from . import \g<1>{new}", text)
            text = text.replace(f'    "{old}",\n', f'    "{new}",\n')
        path.write_text(text)
    given = [known(method=method, encoder=encoder) for method in METHODS for encoder in ENCODERS]
    done = subprocess.run(
        [sys.executable, "-c", NAMES_OF_A_COPY, json.dumps([settings.as_json() for settings in given])],
        cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, *names = json.loads(done.stdout)
    assert Path(file).parent == copy
    assert names == [settings.run_name for settings in given]
