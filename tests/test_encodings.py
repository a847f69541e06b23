"""Files are read and written as UTF-8, and lines reach any terminal, whatever the system's own encoding is."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contrastive import Settings, UserError
from contrastive.storage import files

# Fails where the nearest of our lines, with nothing but the standard library between, leaves an encoding to the system.
GUARD = """
import importlib, pkgutil, sys, sysconfig, traceback, warnings

STANDARD = (sysconfig.get_path("stdlib"), "<frozen")
OTHERS = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
ours = []

def seen(message, category, filename, lineno, file=None, line=None):
    for frame in reversed(traceback.extract_stack()[:-1]):
        if frame.filename.startswith(OTHERS):
            return
        if "contrastive" in frame.filename:
            ours.append(f"{frame.filename}:{frame.lineno}: {frame.line}")
            return
        if not frame.filename.startswith(STANDARD):
            return

warnings.simplefilter("always", EncodingWarning)
warnings.showwarning = seen
import contrastive
for module in pkgutil.walk_packages(contrastive.__path__, "contrastive."):
    importlib.import_module(module.name)
"""

WORK = """
import shutil
from pathlib import Path
import nbformat, numpy as np
from PIL import Image
from contrastive import Settings, load_encoder, load_images, pretrain, resolve
from contrastive.__main__ import main
from contrastive.report import data_section, provenance, runner
from contrastive.report.comparison import write_comparison
from contrastive.report.index import write_index
from contrastive.report.render import render_page
from contrastive.storage.files import locked, tell
from contrastive.sweeps.grids import grid_points, load_grid

here = Path.cwd()
rng = np.random.default_rng(0)
(here / "data").mkdir()
for i in range(60):
    Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(here / "data" / f"{i}.png")
names = "\\u00fc\\u03c9"
rows = ["image,label", *(f"{i}.png,{names[i % 2]}" for i in range(60))]
(here / "data" / "labels.csv").write_text("\\n".join(rows), encoding="utf-8")
images = load_images(here / "data")
assert images.classes == ("\\u00fc", "\\u03c9"), images.classes
tiny = dict(dataset=str(here / "data"), epochs=1, base_channels=1, projection_dim=2)
settings, images = resolve(Settings(preset="smoke", **tiny), images)
run = pretrain(settings, progress=False)
load_encoder(run)
assert main(["pretrain", "--preset", "smoke", *(x for k, v in tiny.items() for x in ("-p", f"{k}={v}"))]) == 0
folder = here / "report"
folder.mkdir()
said = "\\u00b1 \\u2013 " + data_section.account(images)
cells = [nbformat.v4.new_markdown_cell("# A title\\n\\n**A \\u03c9?**"), nbformat.v4.new_markdown_cell(said)]
results = {
    "status": "ok", "format": 2, "metrics": {"knn_accuracy": {"mean": 9.0, "std": 0.0, "n_seeds": 1, "values": [9.0]}},
    "notebooks": ["01_x"], "settings": settings.as_json(),
    "dataset": {"name": "\\u03c9", "sha256": "0", "pretrain": 1, "train": 2, "validation": 3, "test": 4},
    "provenance": provenance(settings), "seconds": {"total": 1.0}, "answers": {},
}
page = render_page("01_x", nbformat.v4.new_notebook(cells=cells), results, [], ["01_x"], "\\u00b1")
runner._write(folder, {"01_x": nbformat.v4.new_notebook(cells=cells)}, results, [], "\\u00b1")
assert "\\u03c9" in (folder / "01_x.html").read_text(encoding="utf-8")
write_index(here)
shutil.copytree(folder, here / "other")
write_comparison([folder, here / "other"], here / "comparison.html")
grid_points(load_grid("flip_blur", {"dataset": str(here / "data"), "labels": 20}))
with locked(folder, "\\u03c9"):
    tell("\\u00b1 \\u03c9")
assert main(["report", "--dataset", "\\u03c9"]) == 2
"""


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_nothing_of_ours_leaves_an_encoding_to_the_system(tmp_path, utf8):
    script = GUARD + WORK + 'print("OURS", sorted(set(ours)))\n'
    environment = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", script],
        cwd=tmp_path, capture_output=True, check=False, timeout=120,
        env={**os.environ, **environment, "CONTRASTIVE_RUNS": str(tmp_path / "runs")},
    )  # fmt: skip
    shown = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    assert shown.splitlines()[-1] == "OURS []"
    assert (r"\xb1 \u03c9" if utf8 == "0" else "\xb1 \u03c9") in shown


def test_the_guard_sees_what_it_is_for(tmp_path):
    (tmp_path / "contrastive_x.py").write_text(
        "import subprocess, sys\nfrom pathlib import Path\nPath(__file__).read_text()\nopen(__file__).close()\n"
        "subprocess.run([sys.executable, '-c', ''], text=True, capture_output=True)\n"
    )
    script = GUARD + 'importlib.import_module("contrastive_x")\nprint(*ours, sep="\\n")\n'
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if "contrastive_x.py" in line}
    assert found == {3, 4, 5}
    assert not [line for line in done.stdout.splitlines() if "contrastive_x.py" not in line]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_line_reaches_a_terminal_that_knows_few_characters(encoding):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    files.tell("± ω", stream)
    assert written.getvalue().decode(encoding).strip() == {
        "ascii": r"\xb1 \u03c9", "latin-1": r"± \u03c9", "utf-8": "± ω",
    }[encoding]  # fmt: skip
    plain = io.StringIO()
    files.tell("± ω", plain)
    assert plain.getvalue() == "± ω\n"


@pytest.mark.parametrize("name", ["dataset", "transfer"])
def test_a_path_that_is_no_utf_8_is_one_line(name):
    with pytest.raises(UserError) as caught:
        Settings(**{name: os.fsdecode(b"/tmp/\xff")})
    assert str(caught.value).startswith(rf"parameter {name}='/tmp/\udcff': a path in UTF-8 is needed")
    assert str(caught.value).isascii()
    assert Settings(**{name: "/tmp/größe/ω"}).flat()[name] == "/tmp/größe/ω"
    assert Path(Settings(dataset="/tmp/größe").data.dataset).name == "größe"
