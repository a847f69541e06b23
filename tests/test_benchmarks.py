"""The benchmark measures what it says, on small data: that it works, not how fast it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmarks
import nbformat
import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import measure, whole_report, worker
from benchmarks.arms import ARMS, WORKERS, loop, our_training, simclr, stock_encoder, stock_head
from benchmarks.losses import LOSSES, matrix_nt_xent
from benchmarks.made_up import made_up
from benchmarks.parts import step_parts
from benchmarks.views import AUGMENTATIONS
from benchmarks.worker import Worker
from docs.published import speed

from contrastive import Settings, load_images, resolve
from contrastive.encoders import build_encoder, projection_head
from contrastive.losses import nt_xent
from contrastive.settings import METHODS
from contrastive.training import begin_epoch, initial_method

ROOT = Path(__file__).parents[1]
PEERS = "lightly,kornia,pytorch-metric-learning"
SMALL = dict(preset="smoke", base_channels=4, n_images=64, batch_size=32, augment="simclr", device="cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")


class Here:
    """A worker without a process of its own, which would take seconds to start."""

    def __init__(self):
        self.made = {}

    def __call__(self, function, *args):
        worker._made = self.made
        return function(*args)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def write_notebook(path, *cells):
    """A notebook of a parameters cell, and of these."""
    kernel = {"name": "python3", "language": "python", "display_name": ""}
    first = nbformat.v4.new_code_cell("preset = None", metadata={"tags": ["parameters"]})
    cells = [first, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=cells), path)
    return path


@pytest.fixture(scope="module")
def here():
    """Workers run in this process."""
    threads = torch.get_num_threads()  # which a worker may change for itself
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(measure, "Worker", Here)
        patch.setattr(worker, "_made", {})
        yield patch
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured(here, tmp_path_factory):
    """The folder of a whole benchmark. Its notebook has a second cell that takes half a second; in place of a report a
    program holds 100 MB for half a second."""
    out = tmp_path_factory.mktemp("bench")
    program = "import time; held = bytearray(b'x') * 100_000_000; time.sleep(0.5)"
    here.setattr(whole_report, "PROGRAM", [sys.executable, "-c", program])
    here.setattr(measure, "NOTEBOOK", write_notebook(out / "own.ipynb", "import time; time.sleep(0.5)", "1 + 1"))
    assert command.main(["--scope", "smoke", "--without", PEERS, "--out", str(out)]) == 0
    return out


def test_everything_is_measured(measured):
    results = json.loads((measured / "benchmarks.json").read_text())
    assert set(results["throughput"]) == {"ours", "ours, float32", "torchvision, 0 workers", f"torchvision, {WORKERS}"}
    assert set(results["resnet18"]["arms"]) == {"ours", "ours, float32", f"torchvision, {WORKERS}"}
    assert set(results["methods"]) == set(METHODS)
    for rates in (results["throughput"], results["resnet18"]["arms"], results["methods"]):
        for values in rates.values():
            assert 0 < values["min"] <= values["median"] <= values["max"]
            assert len(values["values"]) == results["rounds"] == 1
    # The stock layers' operations by hand: three convolutions, forward and twice back, but for the first one's input.
    width, views = 4, 2 * results["settings"]["batch_size"]
    first, second, third = 28 * 28 * width * 9, 14 * 14 * 2 * width * 9 * width, 7 * 7 * 4 * width * 9 * 2 * width
    operations = results["parts"]["operations"]
    assert operations["stock"] == 2 * views * (2 * first + 3 * second + 3 * third)
    assert operations["stock"] - operations["ours"] == 2 * views * 3 * third * 13 / 49
    assert set(results["parts"]["milliseconds"]) == {
        "whole step", "encoder, head and optimiser", "augmentation", "loss",
    }  # fmt: skip
    assert {side: set(part["arms"]) for side, part in results["augmentation"].items()} == {
        side: {"ours", "torchvision"} for side in ("16", "24")
    }
    assert results["losses"]["64"]["plain matrix"]["milliseconds"]["median"] > 0
    assert set(results["scaling"]["microseconds"]) == {"512", "1024"}
    assert results["scaling"]["peak_MiB"]["1024"] > 100
    assert 0.5 < results["notebook"]["imports"]["median"] < 5
    (took,) = results["report"].values()
    assert 0.5 < took["seconds"] < 5
    assert 95 < took["MiB"] < 200  # with the interpreter
    assert results["goal"]["runs"]["ours"]["1"]["accuracy"]["mean"] > 15
    assert results["scope"] == "smoke"
    assert results["dataset"]["name"] == "sklearn_digits"
    assert results["settings"]["augment"] == "simclr"
    assert results["settings"]["base_channels"] == width
    assert not (measured / "benchmarks.partial.json").exists()


def test_the_documents_can_tell_of_new_numbers(measured):
    results = json.loads((measured / "benchmarks.json").read_text())
    said = speed(results)
    assert f"byol {results['methods']['byol']['median']:,.0f}" in said
    views = results["augmentation"]["24"]["arms"]["ours"]["views_per_second"]["median"]
    assert f"| views/s, 24 pixels | torchvision | {views:,.0f} (" in said
    assert "`contrastive report --preset smoke`" in said


def test_the_page_shows_the_measured_numbers(measured):
    page = (measured / "benchmarks.html").read_text()
    results = json.loads((measured / "benchmarks.json").read_text())
    assert f"{results['throughput']['ours']['median']:,.0f}" in page
    assert f"{results['parts']['milliseconds']['whole step']['median']:.2f} ms" in page
    assert page.count("<figure") == page.count('alt="') == 5  # one of them twice: on the first screen, too
    assert "Not measured. On a machine with one" in page  # a GPU
    assert "https://" not in page.replace("https://arxiv.org", "").replace("https://pygments.org", "")


def test_an_interrupted_benchmark_goes_on(here, tmp_path):
    bench, partial = measure.Bench("smoke", set(PEERS.split(","))), tmp_path / "partial.json"
    others = ("throughput", "parts", "losses", "scaling", "methods", "resnet18", "notebook", "report", "goal")
    before = {**{name: {"measured": name} for name in others}, "commits": dict.fromkeys(others, "old")}
    partial.write_text(json.dumps(before))
    results = bench.measure(partial, "new")
    assert {name: results[name] for name in others} == {name: before[name] for name in others}
    assert results["augmentation"]["16"]["arms"]["ours"]["views_per_second"]["median"] > 0
    assert results["commits"] == {**before["commits"], "augmentation": "new"}
    assert json.loads(partial.read_text()) == results


def test_a_worker_is_a_process_that_remembers():
    settings, _ = resolve(Settings(**SMALL))
    with Worker() as process:
        assert process(os.getpid) == process(os.getpid) != os.getpid()
        process(worker.prepare, "ours", settings)
        assert process(worker.epoch)["images"] == 64


def test_what_is_compared_takes_turns():
    called = []

    def call(name, process):
        called.append(name)
        return float(len(called))

    found = measure.in_turn({"a": Here(), "b": Here()}, 3, call)
    assert called == ["a", "b"] * 3
    assert found["b"] == {"median": 4.0, "min": 2.0, "max": 6.0, "values": [2.0, 4.0, 6.0]}


def test_wrong_requests_are_told_in_one_line(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise command.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(command.metadata, "version", missing)
    (tmp_path / "file").touch()
    for request, answer in {
        "--scope smoke": "lightly is not installed",
        "--without lightli": "Did you mean 'lightly'",
        "--without ours": "unknown library 'ours'",
        f"--scope smoke --without {PEERS} --out {tmp_path}/file/x": "cannot write",
        f"--render-only --out {tmp_path}": "benchmarks.json cannot be read",
    }.items():
        assert command.main(request.split()) == 2, request
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert answer in said
        assert said.count("\n") == 1
    monkeypatch.undo()
    words = [sys.executable, "-m", "benchmarks", "--without", "ours"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown library 'ours'")


@pytest.mark.parametrize(
    ("failure", "code", "answer"),
    [
        (benchmarks.PartError("a report failed: no room"), 1, "error: a report failed: no room\n"),
        (KeyboardInterrupt(), 130, "error: stopped. The same command measures what is left.\n"),
    ],
)
def test_what_ends_a_benchmark_is_told_in_one_line(monkeypatch, capsys, failure, code, answer):
    def fails(*given):
        raise failure

    monkeypatch.setattr(command, "measure_all", fails)
    assert command.main(["--scope", "smoke", "--without", PEERS]) == code
    assert capsys.readouterr().err == answer


def test_the_arms_train_the_same_network_with_the_same_loss():
    settings, images = Settings(base_channels=4), load_images("digits")
    ours = build_encoder(settings.encoder, images.format.shape, images.mean, images.std).eval()
    stock = stock_encoder(settings, images).eval()
    stock.load_state_dict(ours.state_dict())
    views = stock.prepare(images.test[:5])
    maps = stock(views).view(5, 16, 3, 3).permute(0, 2, 3, 1).flatten(1)  # its features in our order
    torch.testing.assert_close(ours(views), maps)
    sizes = [p.shape for p in projection_head("mlp", ours.out_dim, simclr(settings).projection_dim).parameters()]
    assert [p.shape for p in stock_head(stock, settings).parameters()] == sizes
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 30, 8).unbind()
    torch.testing.assert_close(nt_xent(z1, z2, 0.3), matrix_nt_xent(0.3)(z1, z2))
    assert LOSSES["plain matrix"] is matrix_nt_xent


def test_the_usual_loop_trains_as_ours_does():
    settings, images = resolve(Settings(**SMALL, epochs=2, weight_decay=0.1, precision="float32", lr=0.01))
    data = images.train[:64]
    ours, method = our_training(settings, images, torch.arange(64)), initial_method(settings, images.format)
    states = [begin_epoch(ours, number) for number in range(2)]

    def batches():
        state = states.pop(0)
        for index in state.order.split(32):
            yield ours.make_views(data[index], state.draws)

    usual = loop(settings, method.encoder, method.head, lambda z1, z2: nt_xent(z1, z2, 1.0), batches)
    before = torch.cat([weight.flatten() for weight in method.encoder.parameters()]).detach()
    epoch, encoder = ARMS["ours"](settings, images, torch.arange(64))
    assert [(epoch(number)[0], usual(number)[0]) for number in range(2)] == [(64, 64)] * 2
    moved, other = (
        torch.cat([weight.flatten() for weight in parameters]).detach() - before
        for parameters in (encoder.parameters(), method.encoder.parameters())
    )
    assert (moved - other).norm() < 0.03 * moved.norm()  # not equal: Adam blows rounding up where gradients are tiny


def test_the_parts_do_what_a_step_does():
    settings, images = resolve(Settings(**SMALL))
    parts = step_parts(settings, images, torch.arange(64))
    for call in parts.values():
        for _ in range(3):  # an epoch has two steps: more of them have to be no trouble
            call()
    assert [view.shape for view in parts["augmentation"]()] == [(32, 1, 28, 28)] * 2
    assert next(iter(parts)) == "whole step"


@pytest.mark.parametrize("arm", [name for name in ARMS if name.startswith(("lightly", "kornia"))])
def test_the_other_libraries_train_the_same_network(here, arm):
    pytest.importorskip(arm.partition(",")[0])
    settings, _ = resolve(Settings(**SMALL))
    process = Here()
    process(worker.prepare, arm, settings)
    encoder = process.made["encoder"]
    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    assert process(worker.epoch)["images"] == 64
    own = build_encoder(settings.encoder, (1, 28, 28), (0.5,), (0.5,))
    assert {weight.shape for weight in before.values()} == {weight.shape for weight in own.parameters()}
    assert all((weight != before[name]).any() for name, weight in encoder.named_parameters())


def test_the_other_libraries_have_the_same_loss(here):
    for package in ("lightly", "pytorch_metric_learning"):
        pytest.importorskip(package)
    found = [Here()(worker.prepare_loss, name, 40, 16, 0.5) for name in LOSSES]
    for result in found:
        assert result["value"] == pytest.approx(found[0]["value"], rel=1e-4)
        assert result["gradient"] == pytest.approx(found[0]["gradient"], rel=1e-4)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("side", [28, 64])
def test_augmentations_give_two_normalised_views_of_each_image(name, side):
    pytest.importorskip(name if name == "kornia" else "torch")
    images, _ = made_up(6, side)
    views = AUGMENTATIONS[name](images)()
    views = torch.cat(views) if isinstance(views, list) else views
    assert (views.shape, views.dtype) == ((12, 3, side, side), torch.float32)
    assert -2.001 <= views.min() < 0 < views.max() <= 2.001  # from 0 to 1, less 0.5, over 0.25


GREEDY = """
import torch
from benchmarks import worker
def greedy(images):
    def call():
        held = torch.full((3 * 2 * images.numel(),), 1.0)
        return torch.full((2, *images.shape), float(held[0]))
    return call
worker.AUGMENTATIONS["greedy"] = greedy
print(worker.prepare_augmentation("greedy", 224, 32))
"""


def test_extra_memory_is_what_is_taken_beyond_the_views():
    """Of an augmentation that holds three times its views while it works, in a process that kept no memory before."""
    done = subprocess.run([sys.executable, "-c", GREEDY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(3, abs=0.3)
