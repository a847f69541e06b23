"""What a report says of how it was made: the same command makes the same run again."""

import shlex
import subprocess
from pathlib import Path

import pytest

from contrastive import Settings, load_images, resolve
from contrastive.__main__ import given_parameters, parser
from contrastive.data import split
from contrastive.report import describe_data, origins, provenance
from contrastive.report.origins import ONLY, changed, command
from contrastive.settings import digest


@pytest.fixture(autouse=True)
def _all_notebooks(monkeypatch):
    monkeypatch.setenv(ONLY, "")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"method": "byol", "momentum": 0.5, "encoder": "resnet18", "stem": "imagenet"},
        {"method": "mocov2", "queue_size": 64, "lr": 2e-3, "budgets": "50,200", "grids": ("left_out", "temperature")},
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
        "validation": len(parts.validation),
        "test": 360,
    }
