"""An encoder and a method of ten lines each that another package brings, through an entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import contrastive

MODULE = """
import torch
from torch import nn
from contrastive.encoders import Encoder
from contrastive.methods import Method, Output
from contrastive.settings import ENCODERS, METHODS, EncoderSettings, Int, MethodSettings


class TinySettings(EncoderSettings):
    units: Int = 128


@ENCODERS.register("tiny")
class Tiny(Encoder):
    Parameters = TinySettings

    def __init__(self, settings, shape, mean, std):
        body = nn.Sequential(nn.AdaptiveAvgPool2d(14), nn.Flatten(), nn.Linear(196 * shape[0], settings.units))
        super().__init__(body, settings.units, mean, std)


class MineSettings(MethodSettings):
    pull: Int = 2


@METHODS.register("mine")
class Mine(Method):
    Parameters = MineSettings

    def forward(self, batch, progress):
        z1, z2 = self.encoder(torch.cat(batch.views)).chunk(2)
        return Output((z1 - z2).square().mean() * self.settings.method.pull + (z1.std(0) - 1).square().mean())
"""


def package(folder: Path, source: str) -> str:
    """Install a package by hand: a module, and the file that tells of its entry point. Returns the PYTHONPATH."""
    (folder / "theirs.py").write_text(source)
    metadata = folder / "theirs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[contrastive]\ntheirs = theirs\n")
    return str(folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where a package lies that brings encoder `tiny` and method `mine`; and a runs folder."""
    return {
        "PYTHONPATH": package(tmp_path_factory.mktemp("site"), MODULE),
        "CONTRASTIVE_RUNS": str(tmp_path_factory.mktemp("runs")),
    }


CHOSEN = ("--preset", "smoke", "-p", "encoder=tiny", "-p", "method=mine")


def test_both_train_and_the_run_goes_by_their_names(installed):
    done = contrastive("pretrain", *CHOSEN, "-p", "units=9", **installed)
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.splitlines()[-1])
    assert "-mine-tiny-4ep-s0-" in folder.name
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["encoder"], settings["units"], settings["method"], settings["pull"]) == ("tiny", 9, "mine", 2)
    losses = [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def test_a_report_runs_with_them(installed, tmp_path):
    few = "-p budgets=50 -p supervised_steps=10 -p general=none --only 01_pretrain --only 02_linear_eval"
    done = contrastive("report", *CHOSEN, *few.split(), "--out", str(tmp_path / "report"), **installed)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["checks"]
    assert all(check["passed"] for check in results["checks"])
    assert (results["settings"]["encoder"], results["settings"]["method"]) == ("tiny", "mine")
    assert {"linear_accuracy@50", "random_encoder_accuracy@50", "supervised_accuracy@50"} <= set(results["metrics"])


ASK = """
from contrastive.__main__ import main
for words in {asked!r}:
    print(main(["pretrain", "--preset", "smoke", *words]))
"""


def test_their_parameters_belong_to_them(installed):
    asked = {
        ("-p", "units=9"): "parameter units=9 belongs to encoder tiny, and cnn was chosen",
        ("-p", "method=mine", "-p", "temperature=0.2"): "belongs to method simclr, mocov2, mocov3, ",
        ("-p", "method=mimee"): "unknown method 'mimee'. Did you mean 'mine'?",
        ("-p", "encoder=tiny", "-p", "units=many"): "parameter units='many'",
    }
    command = [sys.executable, "-c", ASK.format(asked=list(asked))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **installed}, check=True)
    assert done.stdout.split() == ["2"] * len(asked)
    for line, said in zip(done.stderr.splitlines(), asked.values(), strict=True):
        assert said in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def half(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            MODULE.replace("class Mine(", "class Mine2(")
            + "\nMETHODS.register('plain')(type('P', (), {'Parameters': int}))",
            "ValueError: method 'plain': Parameters has to be a class of settings",
        ),
        (MODULE.replace('register("mine")', 'register("simclr")'), "ValueError: there is already method 'simclr'"),
    ],
)
def test_one_that_cannot_be_imported_is_one_line_and_exit_2(tmp_path, source, said):
    done = contrastive("pretrain", "--preset", "smoke", PYTHONPATH=package(tmp_path, source))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the plug-in theirs (theirs) cannot be imported: ")
    assert said in done.stderr
    assert "Mend it, or remove its package." in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_lines_above_are_about_ten_for_each():
    lines = [line for line in MODULE.splitlines() if line and "import" not in line]
    assert len(lines) <= 22
    assert "theirs" not in sys.modules
