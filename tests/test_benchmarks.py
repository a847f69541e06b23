"""The benchmark measures what it says, on small data: that it works, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks.arms import LOSSES, matrix_nt_xent, stock_encoder, stock_head

from contrastive import Settings, load_images
from contrastive.encoders.cnn import build_encoder, projection_head
from contrastive.losses.ntxent import nt_xent
from contrastive.report.readme import BEGIN_SPEED, BENCHMARKS, END_SPEED, generated_speed
from contrastive.report.speed import goal_table, parts_table, speed_table

ROOT = Path(__file__).parents[1]
PEERS = "lightly,kornia,pytorch-metric-learning"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scope", "smoke", "--without", PEERS, "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_everything_is_measured(measured):
    results = json.loads((measured / "benchmarks.json").read_text())
    arms = {"ours", "ours, float32", "torchvision, 0 workers", "torchvision, 2 workers"}
    assert set(results["throughput"]) == arms
    for values in results["throughput"].values():
        assert 0 < values["min"] <= values["median"] <= values["max"]
        assert len(values["values"]) == results["rounds"] == 1
    # The stock layers' operations by hand: three convolutions, forward and twice back, but for the first one's input.
    width, views = 4, 2 * results["settings"]["batch_size"]
    first, second, third = 28 * 28 * width * 9, 14 * 14 * 2 * width * 9 * width, 7 * 7 * 4 * width * 9 * 2 * width
    operations = results["parts"]["operations"]
    assert operations["stock"] == 2 * views * (2 * first + 3 * second + 3 * third)
    assert operations["stock"] - operations["ours"] == 2 * views * 3 * third * 13 / 49
    assert results["losses"]["64"]["plain matrix"]["milliseconds"]["median"] > 0
    assert set(results["scaling"]["microseconds"]) == {"512", "1024"}
    assert results["scaling"]["peak_MiB"]["1024"] > 100
    assert results["goal"]["runs"]["ours"]["1"]["accuracy"]["mean"] > 15
    assert results["scope"] == "smoke"
    assert results["dataset"]["name"] == "digits"


def test_the_page_shows_the_measured_numbers(measured):
    page = (measured / "benchmarks.html").read_text()
    results = json.loads((measured / "benchmarks.json").read_text())
    assert f"{results['throughput']['ours']['median']:,.0f}" in page
    assert f"{results['parts']['milliseconds']['whole step']['median']:.2f} ms" in page
    assert page.count("<figure") == page.count('alt="') == 3  # one of them twice: on the first screen, too
    assert "https://" not in page.replace("https://arxiv.org", "").replace("https://pygments.org", "")


def test_ratios_are_of_medians():
    def value(median):
        return {"median": median}

    def loss(ms, memory):
        return {"milliseconds": value(ms), "extra_MiB": memory}

    def run(seconds, *accuracy):
        return {
            "seconds": {"mean": seconds},
            "accuracy": {"mean": sum(accuracy) / len(accuracy), "std": 0.1, "values": list(accuracy)},
        }

    ours = {"4": run(8.0, 98.5), "5": run(10.0, 98.7)}
    theirs = {"15": run(150.0, 98.0), "30": run(300.0, 98.5)}
    goal = {"goal": 98.6, "n_labels": 30000, "reached": {"ours": 5}, "runs": {"ours": ours, "lightly": theirs}}
    measured = {
        "throughput": {"ours": value(3000), "lightly": value(500)},
        "losses": {"256": {"ours": loss(2.0, 1.0), "plain matrix": loss(4.0, 8.0)}},
        "goal": goal,
        "parts": {
            "milliseconds": {"whole step": value(100.0), "encoder, head and optimiser": value(92.0)},
            "operations": {"stock": 23e9, "ours": 20e9},
            "matrix_product": {"per_second": value(400e9)},
        },
    }
    table = speed_table(measured)
    assert "| 3,000 | 500 | **6.0x** as many |" in table
    assert "| 10.0 | over 300 | over **30x** sooner |" in table
    assert "| 2 (1) | 4 (8) | **0.5** of the time |" in table
    goal["reached"]["lightly"] = 30  # crossed between the run of 15 epochs, which fell short, and this one
    theirs["15"], theirs["30"] = run(150.0, 98.0), run(300.0, 98.7)
    assert "| 10.0 | 300 | **15x to 30x** sooner |" in speed_table(measured)
    del goal["reached"]["lightly"]
    assert "| ours | 5 | 1 | **10.0** | **98.70 %** |" in goal_table(goal)
    assert "| the step less encoder, head and optimiser | 8.00 ms | 8.0 % |" in parts_table(measured)
    assert "| 250 GFLOP/s | 62 % of 400 |" in parts_table(measured)


def test_wrong_requests_are_told_in_one_line(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise bench.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bench.metadata, "version", missing)
    (tmp_path / "file").touch()
    for request, answer in {
        "--scope smoke": "lightly is not installed",
        "--without lightli": "Did you mean 'lightly'",
        "--without ours": "unknown library 'ours'",
        f"--scope smoke --without {PEERS} --out {tmp_path}/file/x": "cannot write",
        f"--render-only --out {tmp_path}": "benchmarks.json cannot be read",
    }.items():
        assert bench.main(request.split()) == 2, request
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert answer in said
        assert said.count("\n") == 1


def test_the_arms_train_the_same_network_with_the_same_loss():
    settings, images = Settings(width=4), load_images("digits")
    ours = build_encoder(settings, tuple(images.train.shape[1:]), images.mean, images.std).eval()
    stock = stock_encoder(settings, images).eval()
    stock.load_state_dict(ours.state_dict())
    views = stock.prepare(images.test[:5])
    maps = stock(views).view(5, 16, 3, 3).permute(0, 2, 3, 1).flatten(1)  # its features in our order
    torch.testing.assert_close(ours(views), maps)
    sizes = [p.shape for p in projection_head("mlp", ours.feature_dim, settings.projection_dim).parameters()]
    assert [p.shape for p in stock_head(stock, settings).parameters()] == sizes
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 30, 8).unbind()
    torch.testing.assert_close(nt_xent(z1, z2, 0.3), matrix_nt_xent(0.3)(z1, z2))
    assert LOSSES["plain matrix"] is matrix_nt_xent


def test_the_source_notebook_is_clean():
    notebook = nbformat.read(ROOT / "benchmarks" / "benchmarks.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in code].count(["parameters"]) == 1
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 12
    assert notebook.metadata.kernelspec.name == "python3"


def test_readme_is_generated_from_the_published_measurements():
    text, published = (ROOT / "README.md").read_text(), json.loads(BENCHMARKS.read_text())
    shown = text[text.index(BEGIN_SPEED) + len(BEGIN_SPEED) : text.index(END_SPEED)]
    assert shown.strip() == generated_speed(published).strip()
    assert published["scope"] == "full"
    assert published["dataset"]["name"] == "mnist"
    assert published["dirty"] is False
