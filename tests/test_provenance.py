"""What a report says of how it was made: the same command makes the same run again."""

import dataclasses
import shlex
import subprocess
from pathlib import Path

import pytest

from contrastive import Settings, load_images, resolve
from contrastive.__main__ import given_parameters, parser
from contrastive.data import Account, split
from contrastive.data.images import make_images
from contrastive.report import describe_data, origins, provenance
from contrastive.report.origins import ONLY, changed, command
from contrastive.settings import digest


def first_of(images, n_train):
    """A data set of the first images of another, of which as many are to train on."""
    pixels = [images.train[:n_train].numpy(), images.test.numpy()]
    labels = [images.train_labels[:n_train].numpy(), images.test_labels.numpy()]
    return make_images("sklearn_digits", [pixels[0], labels[0], pixels[1], labels[1]])


@pytest.fixture(autouse=True)
def _all_notebooks(monkeypatch):
    monkeypatch.setenv(ONLY, "")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"method": "byol", "momentum": 0.5, "encoder": "resnet18", "stem": "imagenet"},
        {"method": "mocov2", "queue_size": 256, "lr": 2e-3, "budgets": "50,200", "grids": ("left_out", "temperature")},
        {"augment": "simclr-blur+rotate:15", "second_augment": "none", "precision": "float32", "device": "cpu"},
        {"n_images": 300, "seed": 3, "l2_normalize": False, "evaluation": "full", "transfer": "digits"},
    ],
)
def test_the_command_asks_for_the_same_run_and_the_same_report(given):
    settings, _ = resolve(Settings(preset="smoke", **given))
    words = shlex.split(command(settings))
    assert words[:6] == ["contrastive", "report", "--preset", "smoke", "--dataset", "sklearn_digits"]
    again, _ = resolve(Settings(**given_parameters(parser().parse_args(words[1:]))))
    assert again == settings
    assert again.identity == settings.identity


def test_what_was_found_by_itself_is_not_part_of_the_request():
    settings, _ = resolve(Settings(preset="smoke"))
    assert {"augment", "device", "precision"} <= {n for n, v in settings.flat().items() if v != Settings().flat()[n]}
    assert changed(settings) == {}
    assert command(settings) == "contrastive report --preset smoke --dataset sklearn_digits"
    asked, _ = resolve(Settings(preset="smoke", method="byol", epochs=9, budgets=(50,)))
    assert changed(asked) == {"method": "byol", "epochs": 9, "budgets": (50,)}


@pytest.mark.parametrize("n_train", [60, 1000])
def test_numbers_that_shrank_are_no_part_of_the_request_and_asked_ones_are_even_if_the_preset_has_the_same(n_train):
    few = first_of(load_images("digits"), n_train)
    settings, _ = resolve(Settings(preset="smoke"), few)
    assert (settings.optimiser.batch_size < 128) == (n_train == 60)
    assert changed(settings) == {}
    # Without these words the command would ask for a smaller batch.
    asked = Settings(preset="smoke", n_images=40, batch_size=40, budgets=(10, 40), ablation_labels=30, epochs=4)
    assert changed(resolve(asked, few)[0]) == {
        "n_images": 40, "batch_size": 40, "epochs": 4, "budgets": (10, 40), "ablation_labels": 30,
    }  # fmt: skip
    if n_train == 1000:
        same, _ = resolve(Settings(preset="smoke", n_images=300, batch_size=128), few)
        assert command(same).endswith("-p n_images=300 -p batch_size=128")
        again = Settings(**given_parameters(parser().parse_args(shlex.split(command(same))[1:])))
        assert resolve(again, few)[0] == same


def test_the_command_names_its_notebooks_where_they_are_not_all(monkeypatch):
    monkeypatch.setenv(ONLY, "01_pretrain,02_linear_eval")
    said = command(resolve(Settings(preset="smoke"))[0])
    assert said.endswith("--only 01_pretrain --only 02_linear_eval")
    args = parser().parse_args(shlex.split(said)[1:])
    assert args.only == ["01_pretrain", "02_linear_eval"]


def test_words_with_spaces_survive_a_shell():
    settings, _ = resolve(Settings(preset="smoke"))
    data = settings.data.model_copy(update={"dataset": "/my images/it's"})
    words = shlex.split(command(settings.model_copy(update={"data": data})))
    assert "/my images/it's" in words


def test_provenance_names_run_seeds_packages_and_machine():
    settings, _ = resolve(Settings(preset="smoke", seed=3, n_seeds=2, epochs=1))
    made = provenance(settings)
    assert made["seeds"] == [3, 4]
    assert made["run"] == digest(settings.identity) == settings.run_name.rpartition("-")[2]
    assert {"torch", "numpy", "python"} <= set(made["packages"])
    assert (made["device"], made["precision"]) == (settings.runtime.device, settings.runtime.precision)
    assert made["changed"] == {"epochs": "1", "seed": "3", "n_seeds": "2"}
    assert made["start"] <= made["end"]


def test_reports_are_not_part_of_the_code(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        subprocess.run(command, check=True, capture_output=True)

    monkeypatch.setattr(origins, "checkout", lambda: tmp_path)
    settings, _ = resolve(Settings(preset="smoke"))
    for name in ("lib.py", "reports/r.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    assert provenance(settings)["commit"].startswith("unknown")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert len(provenance(settings)["commit"]) == 40
    for name, dirty in (("reports/r.html", False), ("untracked.py", False), ("lib.py", True)):
        Path(tmp_path / name).write_text("2")
        assert provenance(settings)["dirty"] == dirty, name


def test_data_are_described_by_checksum_and_counts():
    images = load_images("digits")
    parts = split(images, 512, 0)
    assert describe_data(images, parts) == {
        "name": "sklearn_digits",
        "sha256": images.sha256,
        "pretrain": 512,
        "train": len(images.train),
        "labels": 1437,
        "validation": len(parts.validation),
        "test": 360,
        "preparation": {
            "height": 28, "width": 28, "channels": 1, "fit": "crop", "background": "white", "window": None,
        },
    }  # fmt: skip


def test_a_description_counts_labels_and_what_was_left_out_and_has_the_note():
    images = load_images("digits")
    few = images.train_labels.clone()
    few[100:] = -1
    account = Account(left_out=(("train", "damaged", 2), ("", "no images", 3)))
    some = dataclasses.replace(images, train_labels=few, account=account, note="Some.")
    said = describe_data(some, split(some, 512, 0))
    assert (said["labels"], said["note"]) == (100, "Some.")
    assert said["left_out"] == {"train: damaged": 2, "no images": 3}
    window = dataclasses.replace(images.preparation, window=(10.0, 4095.0))
    deep = dataclasses.replace(images, preparation=window)
    assert describe_data(deep, split(deep, 512, 0))["preparation"]["window"] == [10.0, 4095.0]
