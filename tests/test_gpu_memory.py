"""Batches and images that do not fit a GPU's memory."""

import pytest
import torch

from contrastive import Settings, pretrain, resolve
from contrastive.__main__ import main
from contrastive.evaluation.labelled import classifier
from contrastive.methods.simclr import SimCLR
from contrastive.methods.supervised import Supervised
from contrastive.report import runner
from contrastive.settings import METHODS, RunError, UserError
from contrastive.training import check_fits, loop, memory, train
from contrastive.training.checkpoint import load_state

from .trainings import begun

TINY = dict(epochs=3, base_channels=2, n_images=256, batch_size=128)


@pytest.fixture
def memory_for(monkeypatch):
    """A function that makes method `own` one that has memory for so many images, and for so many steps."""

    def limited(images, steps=10**9):
        class Limited(SimCLR):
            taken = 0

            def forward(self, batch, progress):
                Limited.taken += 1
                if len(batch.views[0]) > images or Limited.taken > steps:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                return super().forward(batch, progress)

        monkeypatch.setitem(METHODS._entries, "own", Limited)

    return limited


@pytest.mark.parametrize("most", [2, 3, 20, 31, 33, 100, 127])
def test_the_largest_batch_is_found_to_a_thirty_second_part(most):
    tried = []
    found = memory.largest_batch(lambda n: tried.append(n) or n <= most, 128)
    assert most - max(most // 32, 1) < found <= most
    assert max(tried) < 128
    assert len(tried) == len(set(tried)) <= 7


def test_when_no_batch_fits_none_is_found():
    assert memory.largest_batch(lambda n: False, 128) == 0


def test_a_batch_that_does_not_fit_is_an_error_with_the_largest_that_would(memory_for):
    memory_for(images=50)
    with pytest.raises(UserError, match=r"^batch_size=128 does not fit .* batch_size=(49|50)\. [^\n]*$") as wrong:
        train(begun(method="own", **TINY))
    assert not isinstance(wrong.value, RunError)  # nothing was begun
    memory_for(images=0)
    with pytest.raises(UserError, match="not even a batch of 2 fits"):
        train(begun(method="own", **TINY))


def test_a_batch_has_to_fit_the_second_step_too(monkeypatch):
    class Growing(SimCLR):
        last = 0

        def forward(self, batch, progress):
            n = len(batch.views[0])
            if n > (30 if n == Growing.last else 50):
                raise torch.OutOfMemoryError("CUDA out of memory.")
            Growing.last = n
            return super().forward(batch, progress)

    monkeypatch.setitem(METHODS._entries, "own", Growing)
    with pytest.raises(UserError, match=r"batch_size=(29|30)\. "):
        train(begun(method="own", **TINY))


def test_a_network_on_labels_that_does_not_fit_is_told_as_such(memory_for, monkeypatch, fresh_runs):
    settings, images = resolve(Settings(preset="smoke", **TINY))
    monkeypatch.setattr(Supervised, "forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(RunError, match=r"trained on 50 labels does not fit the GPU's memory in batches of 50\."):
        classifier(settings, images, images.labelled[:50])


def test_memory_that_runs_out_later_leaves_the_last_checkpoint_from_which_it_goes_on(memory_for, fresh_runs):
    memory_for(images=128, steps=3)
    settings = Settings(preset="smoke", method="own", checkpoint_seconds=0, **TINY)
    with pytest.raises(RunError, match=r"ran out at step 4 of 6, [^\n]* from the last checkpoint[^\n]*below 128\.$"):
        pretrain(settings, progress=False)
    (folder,) = (path for path in fresh_runs.iterdir() if path.is_dir())
    position = load_state(folder)["position"]
    assert (position["epoch"], position["step"]) == (1, 1)
    memory_for(images=128)
    resumed = (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes()
    assert METHODS._entries["own"].taken == 3
    (folder / "encoder.safetensors").unlink()
    for path in folder.glob("state*"):
        path.unlink()
    assert (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes() == resumed


def test_a_report_looks_whether_a_step_fits_before_it_starts(memory_for, monkeypatch, tmp_path, capsys):
    memory_for(images=50)
    settings, _ = resolve(Settings(preset="smoke", method="own", **TINY))
    check_fits(settings)  # a processor's memory is not looked at
    assert METHODS._entries["own"].taken == 0
    on_gpu = settings.runtime.model_copy(update={"device": "cuda"})
    started = loop.start
    monkeypatch.setattr(loop, "start", lambda of, *rest: started(of.replace(device="cpu"), *rest))
    with pytest.raises(UserError, match=r"^batch_size=128 does not fit"):
        check_fits(settings.model_copy(update={"runtime": on_gpu}))
    memory_for(images=128, steps=1)  # room for the first step, not for what it leaves behind
    with pytest.raises(UserError, match=r"^not even a batch of 2 fits"):
        check_fits(settings.model_copy(update={"runtime": on_gpu}))
    memory_for(images=50)
    resolved = runner.resolve
    monkeypatch.setattr(runner, "resolve", lambda asked: (
        resolved(asked)[0].model_copy(update={"runtime": on_gpu}), resolved(asked)[1]))  # fmt: skip
    monkeypatch.setattr(runner, "in_own_process", lambda function, *args: function(*args))
    words = ["report", "--preset", "smoke", "--out", str(tmp_path / "report"), "-p", "method=own"]
    assert main([*words, *(word for name, value in TINY.items() for word in ("-p", f"{name}={value}"))]) == 2
    assert capsys.readouterr().err.startswith("error: batch_size=128 does not fit")
    assert not (tmp_path / "report").exists()


def test_what_needs_a_process_of_its_own_gives_its_result_and_its_error():
    assert runner.in_own_process(divmod, 7, 2) == (3, 1)
    with pytest.raises(UserError, match=r"^unknown notebook 'nonsense'"):
        runner.in_own_process(runner.choose_notebooks, runner.notebook_folder(), ["nonsense"])


def test_images_that_do_not_fit_are_an_error_with_how_many_would(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_000_000, 9_000_000))
    data = torch.zeros(1, dtype=torch.uint8).expand(1000, 3, 40, 40)
    with pytest.raises(UserError, match=r"^1,000 images of 40x40 .* about 625 would\. [^\n]*$"):
        memory.check_images_fit(data, torch.device("cuda"))
    memory.check_images_fit(data[:600], torch.device("cuda"))
    held = {"memory_reserved": 5_000_000, "memory_allocated": 3_000_000}  # two of them are kept, and free
    for name, size in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, size=size: size)
    memory.check_images_fit(data, torch.device("cuda"))
    memory.check_images_fit(data, torch.device("cpu"))
