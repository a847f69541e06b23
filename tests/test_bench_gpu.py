"""What is measured on a GPU works on the CPU with small sizes; how fast it is, only a GPU can tell."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import gpu, gpu_parts
from benchmarks.gpu_parts import PARTS, Row, Setup, Sizes
from benchmarks.made_up import made_up

from contrastive import UserError
from contrastive.settings import METHODS

ROOT = Path(__file__).parents[1]
# What makes pages, and other libraries: a machine with a GPU may have none of them
LACKING = (
    "papermill", "nbformat", "nbconvert", "jinja2", "matplotlib", "seaborn", "latex2mathml", "lightly", "kornia",
    "pytorch_metric_learning", "yaml", "IPython",
)  # fmt: skip
SMALL = f"""
import sys
sys.modules.update(dict.fromkeys({LACKING}))  # so that an import of them fails
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import benchmarks.__main__
from benchmarks import gpu
from benchmarks.gpu_parts import Setup, Sizes
from benchmarks.made_up import write_made_up
from contrastive import load_images
folder = Path(sys.argv[1])
short = dict(epochs=2, short_epochs=1, steps=2, peer_epochs=1, calls=1, rounds=1)
sizes = Sizes(64, 16, losses=(8,), sides=(16,), workers=0, **short)
grey, _, what = gpu.images_at_hand(folder, sizes)
colour = load_images(write_made_up(folder, 128, 64, 8))
own = dict(preset="smoke", budgets=(20,), general="none", supervised_steps=2)
setup = Setup("cpu", sizes, grey, colour, own)
gpu.measure(setup, gpu.about(setup, what, "known otherwise"), folder / gpu.NUMBERS, float("inf"))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What was written and printed in a process that lacks much."""
    folder = tmp_path_factory.mktemp("gpu")
    environment = {**os.environ, "CONTRASTIVE_DATA": str(folder / "none")}
    words = [sys.executable, "-c", SMALL, str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / gpu.NUMBERS).read_text()), done.stdout


def test_every_part_gives_its_figures_without_what_makes_pages(measured):
    results, printed = measured
    assert results["left_out"] == {}
    assert list(results["parts"]) == list(results["seconds"]) == list(PARTS)
    assert results["missing"] == ["lightly", "kornia", "pytorch-metric-learning"]
    assert (results["grey"], results["colour"]) == ("made up", "made up")
    rows = {row["what"]: row["value"] for part in results["parts"].values() for row in part}
    assert {f"step of {name}, small CNN" for name in METHODS} <= set(rows)
    assert {"NT-Xent, N = 8, ours, as in a step", "augmentation, 16 pixels, as in a step"} <= set(rows)
    assert {"NT-Xent, N = 8, ours", "NT-Xent, N = 8, plain matrix", "augmentation, 16 pixels"} <= set(rows)
    assert {f"ResNet-18, torchvision, 0 workers, {how}" for how in ("plain", "tuned")} <= set(rows)
    assert all(value > 0 for value in rows.values() if not isinstance(value, str))
    assert rows["same seed twice, float32"] == "equal"
    for what in rows:
        assert f"{what}: " in printed  # as it came


def test_the_whole_and_its_first_epoch_are_told_apart(measured):
    first, later = (measured[0]["parts"]["pretrain"][i]["value"] for i in (2, 3))
    whole, rate = (measured[0]["parts"]["pretrain"][i]["value"] for i in (0, 1))
    assert 0 < first < whole
    assert rate == pytest.approx(2 * 64 / whole)
    assert later > 64 / (whole - first)  # the whole has files to write as well


def small_setup():
    return Setup("cpu", Sizes(), None, None, {})


def test_parts_that_do_not_fit_are_left_out_and_failures_do_not_stop_the_others(tmp_path, capsys):
    def works(setup):
        yield Row("works", 1.0, "s")

    def fails(setup):
        yield Row("before", 2.0, "s")
        raise UserError("a reason")

    parts = {"fails": (fails, 1), "long": (works, 1000), "works": (works, 1)}
    said, path = [], tmp_path / "numbers.json"
    results = gpu.measure(small_setup(), {"gpu": "none"}, path, time.perf_counter() + 100, parts, said.append)
    assert results["left_out"] == {"fails": "it failed: UserError", "long": "there was no time for it"}
    assert [row["what"] for row in results["parts"]["fails"]] == ["before"]
    assert [row["value"] for row in results["parts"]["works"]] == [1.0]
    assert json.loads(path.read_text()) == results
    assert "works: 1 s" in said
    assert "left out: long, there was no time for it" in said
    assert "a reason" in capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_told(monkeypatch):
    def full(temperature):
        def loss(z1, z2):
            raise torch.OutOfMemoryError("full")

        return loss

    monkeypatch.setitem(gpu_parts.LOSSES, "plain matrix", full)
    setup = Setup("cpu", Sizes(losses=(4,), calls=1, rounds=1), None, None, {})
    rows = {row.what: row.value for row in gpu_parts.losses(setup)}
    assert rows["NT-Xent, N = 4, plain matrix"] is None
    assert rows["NT-Xent, N = 4, ours"] > 0


def test_milliseconds_are_of_one_call():
    setup = Setup("cpu", Sizes(calls=3, rounds=2), None, None, {})
    assert gpu_parts.milliseconds(lambda: time.sleep(0.01), setup) == pytest.approx(10.3, abs=2)


def test_without_a_gpu_there_is_a_line_and_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--scope", "gpu", "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --scope gpu needs a GPU")
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_made_up_images_are_the_same_every_time_and_can_be_learnt_from():
    (images, labels), (again, _) = made_up(400, 16), made_up(400, 16)
    assert torch.equal(images, again)
    assert (images.shape, images.dtype) == ((400, 3, 16, 16), torch.uint8)
    x = images.float().flatten(1)
    means = torch.stack([x[:200][labels[:200] == label].mean(0) for label in range(10)])
    right = torch.cdist(x[200:], means).argmin(1) == labels[200:]
    assert right.float().mean() > 0.9
