"""The project's files agree with each other."""

import importlib
import inspect
import itertools
import re
import subprocess
import tomllib

import pytest
from docs.generate import between, generated_parts
from docs.markdown import ROOT
from docs.published import published

from contrastive.settings import parameters

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def requirements(lines):
    """Package name -> version specifier."""
    return {
        re.split(r"[\s<>=!~;\[]", line)[0].lower(): line.partition(";")[0].strip() for line in lines if line.strip()
    }


def test_lock_pins_all_that_pyproject_names():
    locked = requirements((ROOT / "requirements.lock").read_text().splitlines())
    wanted = requirements([*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())])
    wanted.pop("contrastive")  # whose extras `dev` takes
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
    conda = requirements(e for e in entries[1:] if e not in ("pip", "pip:", "-e .[imagenet]"))
    assert "-e .[imagenet]" in entries  # reports compare with ImageNet features
    assert set(conda) == {"python", "pytorch", "torchvision"}
    wanted = requirements(PROJECT["dependencies"])
    assert conda["pytorch"].removeprefix("pytorch") == wanted["torch"].removeprefix("torch")
    assert conda["torchvision"] == wanted["torchvision"]
    assert conda["python"].removeprefix("python") == PROJECT["requires-python"]


# --- Documents ----------------------------------------------------------------------------------------------------


def test_what_is_generated_of_the_documents_is_what_the_generator_gives():
    for (document, part), content in generated_parts().items():
        text = between((ROOT / document).read_text(), part)
        assert text == content.strip(), f"{part} of {document}: run `make readme`"


def test_published_reports_are_whole_and_of_a_commit():
    for name, results in published().items():
        assert (results["status"], results["dataset"]["name"]) == ("ok", "mnist"), name
        assert results["provenance"]["dirty"] is False, name


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_every_parameter_is_in_the_documents():
    text = (ROOT / "docs" / "parameters.md").read_text()
    assert [name for name in parameters() if f"`{name}`" not in text] == []


def headings(path):
    """The addresses of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", document.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if not link.startswith("http"):
            name, _, address = link.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), link
            assert not address or address in headings(path), link


def test_commands_of_the_documents_are_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        asked = set(re.findall(r"`make ([a-z]+)|^make ([a-z]+)", document.read_text(), re.M))
        assert {first or other for first, other in asked} <= targets, document.name


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


def test_no_file_is_long():
    sources = [path for folder in ("lib", "tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert {path.name: n for path in sources if (n := len(path.read_text().splitlines())) > 320} == {}


def test_no_room_gives_something_by_the_name_of_one_of_its_modules():
    for path in (ROOT / "lib" / "contrastive").rglob("__init__.py"):
        room = importlib.import_module(".".join(path.relative_to(ROOT / "lib").parent.parts))
        modules = {other.stem for other in path.parent.glob("*.py")} - {"__init__", "__main__"}
        assert [name for name in modules if not inspect.ismodule(getattr(room, name, importlib))] == [], room


def test_each_room_says_what_it_is_for():
    for path in (ROOT / "lib" / "contrastive").glob("*/__init__.py"):
        assert path.read_text().startswith('"""'), path
    rooms = {path.parent.name for path in (ROOT / "lib" / "contrastive").glob("*/__init__.py")}
    told = (ROOT / "docs" / "contributing.md").read_text()
    assert [room for room in rooms if f"| `{room}/` |" not in told] == []
