"""Tests use a runs folder of their own, and real MNIST where `$CONTRASTIVE_DATA` has it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from contrastive.data import forget_images
from contrastive.settings import data_root

# Without ImageNet features, which cost seconds; test_cross_validation has a report with them
SMALL = ["--preset", "smoke", "-p", "budgets=50,200", "-p", "epochs=8", "-p", "base_channels=4",
         "-p", "supervised_steps=10", "-p", "ablation_jobs=2", "-p", "general=none"]  # fmt: skip
TINY_RUN = {"preset": "smoke", "epochs": 1, "base_channels": 2, "batch_size": 128}
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update",
]  # fmt: skip
SMALL_GRID = {"title": "A test", "base": TINY_RUN, "seeds": 2, "labels": 100, "vary": {"temperature": [0.5, 1.0]}}
NOTEBOOKS = ("01_pretrain", "02_linear_eval", "03_ablations")
HAVE_MNIST = (data_root() / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
if HAVE_MNIST:
    os.environ["CONTRASTIVE_DATA"] = str(data_root())


def contrastive(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, run."""
    command = [sys.executable, "-m", "contrastive", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=400, env={**os.environ, **environment}, check=False
    )


@pytest.fixture(autouse=True, scope="session")
def _own_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["CONTRASTIVE_RUNS"] = str(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_works() -> None:
    # A shell that starts the tests in the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def fresh_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder of this test alone."""
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def write_grid(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a grid of two tiny points, with other parts where they are given."""

    def to_file(**changes: object) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**SMALL_GRID, **changes}))
        return path

    return to_file


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and no memory of what was loaded or of a missing network."""
    forget_images()
    monkeypatch.setenv("CONTRASTIVE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "x")  # so that monkeypatch restores it
    monkeypatch.delenv("CONTRASTIVE_OFFLINE")
    return tmp_path / "data"


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """A function that gives the most bytes that Python held at once since it was asked before."""

    def since() -> int:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return most

    tracemalloc.start()
    yield since
    tracemalloc.stop()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole report's folder, and how the command ended that made it; made once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, ended = base / "out" / "report", base / "report.json"
    with FileLock(base / "report.lock"):
        if not ended.exists():
            done = contrastive("report", *SMALL, "--out", str(folder))
            ended.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    done = subprocess.CompletedProcess(*json.loads(ended.read_text()))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return folder, done


def browser_path() -> str | None:
    """Where the system's Chromium is, if it has one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")  # not longer, for a second one cannot be started beside it
def browser():
    """The system's Chromium."""
    from playwright.sync_api import sync_playwright

    if browser_path() is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page; what it asks the network for, or complains of, fails the test."""
    contexts, seen = [], []

    def open_page(path, width=1280, script=True, motion="no-preference", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, java_script_enabled=script, reduced_motion=motion, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: seen.append(r.url) if not r.url.startswith(("data:", path.as_uri())) else None)
        page.on("console", lambda m: seen.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: seen.append(str(e)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []
