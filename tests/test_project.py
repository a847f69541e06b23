"""The project's files agree with each other."""

import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from contrastive.report.readme import (
    BEGIN,
    BEGIN_POLICIES,
    END,
    END_POLICIES,
    generated,
    generated_policies,
    published,
)
from contrastive.settings.model import Settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines):
    """Package name -> version specifier."""
    return {
        re.split(r"[\s<>=!~;\[]", line)[0].lower(): line.partition(";")[0].strip() for line in lines if line.strip()
    }


def test_lock_pins_all_that_pyproject_names():
    locked = requirements((ROOT / "requirements.lock").read_text().splitlines())
    wanted = requirements([*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())])
    assert set(wanted) <= set(locked)
    assert all("==" in line for line in locked.values())
    for name, line in wanted.items():
        least = [int(n) for n in re.search(r">=([\d.]+)", line)[1].split(".")]
        pinned = [int(n) for n in re.search(r"==([\d.]+)", locked[name])[1].rstrip(".").split(".")]
        assert pinned >= least, line


def test_environment_leaves_dependencies_to_pyproject():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    entries = [line.strip()[2:] for line in lines if line.strip().startswith("- ")]
    assert entries[0] == "conda-forge"
    conda = requirements(e for e in entries[1:] if e not in ("pip", "pip:", "-e ."))
    assert "-e ." in entries
    assert set(conda) == {"python", "pytorch", "torchvision"}
    wanted = requirements(PROJECT["dependencies"])
    assert conda["pytorch"].removeprefix("pytorch") == wanted["torch"].removeprefix("torch")
    assert conda["torchvision"] == wanted["torchvision"]
    assert conda["python"].removeprefix("python") == PROJECT["requires-python"]


def test_readme_is_generated_from_the_published_results():
    text = (ROOT / "README.md").read_text()
    reports = published()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == generated(reports).strip()
    for results in reports.values():
        assert results["status"] == "ok"
        assert results["dataset"]["name"] == "mnist"
        assert results["provenance"]["dirty"] is False


def test_readme_tells_the_augmentation_policies_as_they_are():
    text = (ROOT / "README.md").read_text()
    assert (
        text[text.index(BEGIN_POLICIES) + len(BEGIN_POLICIES) : text.index(END_POLICIES)].strip()
        == generated_policies()
    )


def test_readme_tells_every_parameter():
    text = (ROOT / "README.md").read_text()
    for name in Settings.model_fields:
        assert f"`{name}`" in text, name


def test_git_keeps_the_library_and_only_published_reports():
    def ignored(path):
        return subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", path], check=False).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert not ignored("lib/contrastive/new.py")
    assert not ignored("reports/published/new/01_pretrain.html")
    assert ignored("reports/new/01_pretrain.html")
    assert ignored("runs/x/state.pt")
    assert ignored("data/MNIST/raw/x")


def test_modules_import_only_from_those_above_them():
    order = (ROOT / "README.md").read_text().partition("`lib/contrastive/`: ")[2].partition("the command line")[0]
    order = [*re.findall(r"`(\w+)/?`", order), "__main__"]
    for path in (ROOT / "lib" / "contrastive").glob("*.py"):
        if path.stem == "__init__":
            continue
        for name in re.findall(r"^ *from \.(\w+)", path.read_text(), re.M):
            assert order.index(name) < order.index(path.stem), f"{path.name} imports {name}"
