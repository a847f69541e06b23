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

from .identity_tables import COMPONENTS, NAMES, OTHERS, READING, WITHOUT_WEIGHT


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
    """A method and an encoder that have a parameter, and what else it takes to count."""
    small = {"local_views": 2} if name in ("local_view_size", "local_augment") else {}
    for method in METHODS:
        for encoder in ENCODERS:
            if name in Settings(method=method, encoder=encoder).flat():
                return {"method": method, "encoder": encoder, **small}
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
        "method": {"version": 2, "name": "byol", "momentum": 0.5},
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
import contrastive, json
from contrastive import Settings
given = json.load(open("given.json"))
settings = [Settings(**each).model_copy(update={"data_sha256": "0" * 64}) for each in given]
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
    given = [*(known(method=method) for method in METHODS), *(known(encoder=encoder) for encoder in ENCODERS)]
    (tmp_path / "given.json").write_text(json.dumps([settings.as_json() for settings in given]))
    done = subprocess.run(
        [sys.executable, "-c", NAMES_OF_A_COPY], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, *names = json.loads(done.stdout)
    assert Path(file).parent == copy
    assert names == [settings.run_name for settings in given]
