"""Reports that fail: each way of failing has its place and reason on the page, in results.json and in the exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from contrastive import Settings, load_images, pretrain
from contrastive.__main__ import main
from contrastive.evaluation import check, health
from contrastive.report import runner
from contrastive.report.execute import execute_notebook
from contrastive.report.runner import RESERVE, run_report
from contrastive.settings import RunError
from contrastive.storage.files import read_json
from contrastive.storage.signals import terminate

from .cells import without_kernels

IMPORT = "from contrastive.report import check, record"


def make_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell("preset: str = None  # a preset", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_markdown_cell("# A title\n\n## A <section>")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), path)


@pytest.fixture
def project(tmp_path, monkeypatch, fresh_runs):
    """Folders for notebooks and reports in place of the checkout's; a function that runs the report, by default of one
    notebook only, since each has a kernel to start."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(runner, "notebook_folder", lambda: tmp_path / "notebooks")
    monkeypatch.setattr(runner, "reports_root", lambda: tmp_path / "reports")

    def run(*sources, both=False, **options):
        make_notebook(tmp_path / "notebooks" / "01_first.ipynb", "print('first')")
        make_notebook(tmp_path / "notebooks" / "02_second.ipynb", "print('before')", *sources, "print('after')")
        only = [] if both else ["02_second"]
        return run_report({"preset": "smoke"}, only, out=str(tmp_path / "reports" / "r"), **options)[0]

    run.folder = tmp_path / "reports" / "r"
    return run


def told(folder, *words):
    """Check that a failure is told everywhere. Returns the error in the results."""
    results = read_json(folder / "results.json")
    assert results["status"] == "failed"
    (error,) = results["errors"]
    for name in results["notebooks"]:
        page = (folder / f"{name}.html").read_text()
        assert 'class="banner failed"' in page
        assert "02_second failed" in page
        assert "A &lt;section&gt;" in page
        assert ("What follows here is incomplete" in page) == (name == "02_second")
    assert error["notebook"] == "02_second"
    assert error["cell"].startswith("section 'A <section>', code cell 4: ")
    for word in words:
        assert word in error["error"]
    index = (folder.parent / "index.html").read_text()
    assert "failed" in index
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return error


def test_an_exception_is_told_with_its_place(project):
    assert project("raise ValueError('<b>bad</b>\\n\u202eluck')", both=True) == 1
    error = told(project.folder, r"ValueError: <b>bad</b>\n\u202eluck")
    assert error["cell"].endswith(r"raise ValueError('<b>bad</b>\n\u202eluck')")
    page = (project.folder / "02_second.html").read_text()
    assert "<b>bad</b>" not in page
    assert "An Exception was encountered" not in page


def test_a_dead_kernel_is_told(project):
    assert project("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)") == 1
    told(project.folder, "kernel died", "memory ran out")


def test_a_timeout_is_told(project):
    assert project("import time\ntime.sleep(60)", timeout=1.5) == 1
    told(project.folder, "longer than the 1.5 s that --timeout allows")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_told_and_stops_the_report(project, tmp_path, number):
    def stop():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        signal.raise_signal(number)  # of the main thread, as from a terminal

    before = signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=stop, daemon=True).start()
    try:
        assert project(f"import time\nopen({str(tmp_path / 'begun')!r}, 'w')\ntime.sleep(60)") == 128 + number
    finally:
        signal.signal(signal.SIGTERM, before)
    told(project.folder, "Stopped by " + {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number])


def test_a_failed_check_gives_exit_1_and_a_banner(project, hostile_folder, capsys):
    assert project(f"{IMPORT}\nrecord(checks=[check('sanity', False, 1, 'more than <1>')])") == 1
    assert read_json(project.folder / "results.json")["status"] == "failed"
    assert "Check failed: sanity." in (project.folder / "02_second.html").read_text()
    assert "failed" in (project.folder.parent / "index.html").read_text()
    assert "FAILED check sanity: seen 1, expected more than <1>" in capsys.readouterr().err
    assert not (hostile_folder / "executed").exists()  # nothing is imported from where the command runs


@pytest.fixture
def hostile_folder(tmp_path, monkeypatch):
    """The current folder, with files of the names that are imported, which leave a trace if they are executed."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("torch", "contrastive", "json", "matplotlib"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'executed')!r}, 'w')")
    monkeypatch.chdir(folder)
    return folder


def test_a_report_that_ran_before_stays_whole_until_the_new_one_is(project, monkeypatch):
    assert project("1") == 0
    before = {path.name: path.read_bytes() for path in project.folder.iterdir()}

    def killed(*args):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(runner, "render_page", killed)
        with pytest.raises(SystemExit):
            project("2")
    after = {path.name: path.read_bytes() for path in project.folder.iterdir()}
    assert {name: content for name, content in after.items() if name != "results.json"} == {
        name: content for name, content in before.items() if name != "results.json"
    }
    results = read_json(project.folder / "results.json")
    assert results["status"] == "failed"
    assert results["errors"][0]["error"] == "killed while the report was written"
    assert project("3") == 0
    assert read_json(project.folder / "results.json")["status"] == "ok"


def test_a_signal_while_the_report_is_written_waits_until_it_is(project, monkeypatch):
    write = runner.atomic_write

    def interrupted(path, content):
        if path.name == "02_second.ipynb":  # once: a second Ctrl-C would act at once
            signal.raise_signal(signal.SIGINT)
        write(path, content)

    monkeypatch.setattr(runner, "atomic_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project("1")
    assert read_json(project.folder / "results.json")["status"] == "ok"
    assert (project.folder / "02_second.html").is_file()


def test_an_index_that_cannot_be_written_leaves_the_report_as_it_is(project, monkeypatch, capsys):
    def full(root):
        raise RunError("the disk that holds the index is full")

    monkeypatch.setattr(runner, "write_index", full)
    assert project("1") == 1
    assert read_json(project.folder / "results.json")["status"] == "ok"
    assert "FAILED the disk that holds the index is full" in capsys.readouterr().err


def test_nobody_reading_the_output_is_no_reason_to_stop(project, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", nobody)
        assert project("1") == 0
    assert capsys.readouterr().err == ""
    assert read_json(project.folder / "results.json")["status"] == "ok"


def test_what_is_kept_free_goes_to_the_report_of_a_full_disk(project, monkeypatch):
    write = runner.atomic_write

    def full_until_released(path, content):
        if (path.parent / RESERVE).exists():
            raise runner.RunError(f"the disk that holds {path.parent} is full")
        write(path, content)

    monkeypatch.setattr(runner, "atomic_write", full_until_released)
    assert project("1") == 1
    results = read_json(project.folder / "results.json")
    assert (results["status"], results["errors"][0]["cell"]) == ("failed", "after the last cell")
    assert "is full" in (project.folder / "02_second.html").read_text()


def test_notices_of_a_notebook_reach_the_terminal(tmp_path, capsys):
    make_notebook(
        tmp_path / "01_x.ipynb",
        "from contrastive.storage.files import say\nsay('look\\x1b[31m')\nimport sys\nprint('no', file=sys.stderr)",
    )
    assert execute_notebook(tmp_path / "01_x.ipynb", {})[1:] == (None, 0)
    assert capsys.readouterr().err == "NOTE: look\\x1b[31m\n"


# --- With training ------------------------------------------------------------------------------------------------


def test_a_killed_report_goes_on_with_its_runs(tmp_path):
    words = ["report", "--preset", "smoke", "--only", "01_pretrain", "--out", str(tmp_path / "out")]
    words += ["-p", "epochs=3000", "-p", "base_channels=4", "-p", "checkpoint_seconds=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "contrastive", *words],
        env={**os.environ, "CONTRASTIVE_RUNS": str(tmp_path / "runs")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in (tmp_path / "runs").glob("*/history.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # in the middle between two checkpoints
    asked = time.time()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert "Traceback" not in out + err
    assert "FAILED 01_pretrain, section " in err
    (state,) = (tmp_path / "runs").glob("*/state.pt")
    assert state.stat().st_mtime > asked  # saved on the way out
    (error,) = read_json(tmp_path / "out" / "results.json")["errors"]
    assert error["error"] == "Stopped by SIGTERM"
    assert "pretrain(" in error["cell"]
    assert "failed" in (tmp_path / "out" / "01_pretrain.html").read_text()


def test_a_collapsed_run_fails_its_checks(tmp_path, monkeypatch, fresh_runs, capsys):
    without_kernels(monkeypatch, tmp_path / "reports")
    words = ["report", "--preset", "smoke", "--only", "01_pretrain", "-p", "lr=10", "-p", "base_channels=4"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert "FAILED check the loss left chance (seed 0)" in shown
    assert "FAILED check no collapse of the projections (seed 0)" in shown
    page = (tmp_path / "out" / "01_pretrain.html").read_text()
    assert "Check failed: no collapse of the projections (seed 0)." in page


def test_health_tells_collapse_from_learning(fresh_runs):
    images = load_images("digits").test
    good = Settings(preset="smoke", temperature=0.5)
    sound = health(pretrain(good, progress=False), images)
    assert all(c["passed"] for c in sound)
    assert set(check("a", True, 1, "1")) == set(sound[0])
    json.dumps(sound)
    collapsed = health(pretrain(good.replace(lr=10.0), progress=False), images)
    passed = {c["name"].partition(" (")[0]: c["passed"] for c in collapsed}
    assert not passed["the loss left chance"]
    assert not passed["no collapse of the projections"]


def test_a_low_loss_of_semi_hard_negatives_is_no_sign_of_health(fresh_runs):
    settings = Settings(preset="smoke", epochs=1, base_channels=2)
    for loss, judged in (("nt_logistic", True), ("nt_logistic_semi_hard", False)):
        checks = health(pretrain(settings.replace(loss=loss), progress=False), load_images("digits").test)
        assert any(c["name"].startswith("the loss left chance") for c in checks) == judged


def test_pretrain_says_when_nothing_was_learned(fresh_runs, capsys):
    assert main(["pretrain", "--preset", "smoke", "-p", "lr=10", "-p", "base_channels=4"]) == 0
    said = capsys.readouterr()
    assert "NOTE: a check failed: the loss left chance (seed 0)" in said.err
    (folder,) = (path for path in fresh_runs.glob("*-simclr-cnn-*") if path.is_dir())
    assert said.out.splitlines()[-1] == str(folder)
