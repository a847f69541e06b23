"""The loop: a step, learning rates by group, views of any number and size, divergence, precision and devices."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive import Settings, load_encoder, load_images, pretrain, processor
from contrastive.augment import OPERATIONS, View
from contrastive.augment.pipeline import Augment
from contrastive.methods import Method, Output
from contrastive.methods.simclr import SimCLR
from contrastive.settings import METHODS, RunError
from contrastive.training import begin_epoch, initial_method, loop, train
from contrastive.training.checkpoint import load_state

from .trainings import begun, take_steps, timeless

TINY = dict(epochs=3, base_channels=2, n_images=128, batch_size=32)
TRAINED = tuple(METHODS)


@pytest.fixture
def named(monkeypatch):
    """A function that gives a method a name, `own`, for this test."""
    return lambda cls: monkeypatch.setitem(METHODS._entries, "own", cls)


@pytest.mark.parametrize(
    ("augment", "method"),
    [
        ("handwriting", "simclr"),
        ("simclr", "supervised"),
        ("+".join(OPERATIONS), "simclr"),
        *(("none", name) for name in METHODS if name not in ("simclr", "supervised")),
    ],
)
def test_no_operation_of_an_epoch_waits_for_the_device(augment, method, monkeypatch):
    monkeypatch.setattr(processor, "on_gpu", lambda x: True)  # as on a GPU

    class Log(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(func.name())
            return func(*args, **(kwargs or {}))

    training = begun(method=method, augment=augment, **TINY)
    colour = Augment(augment, torch.full((3,), 0.5), torch.full((3,), 0.25))
    with Log() as log:
        state = begin_epoch(training, 0)
        for _ in range(training.steps_of_epoch):
            loop.take_step(training, state)
        colour(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), torch.Generator())
    assert "aten::_fused_adam_" in log.seen
    waits = (
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::lift_fresh",
        "aten::is_nonzero",
    )
    assert training.steps_of_epoch == 4
    assert [name for name in log.seen if name.startswith(waits)] == []


# --- Learning rates and groups ------------------------------------------------------------------------------------


class Frozen(SimCLR):
    """SimCLR whose first convolution is not trained."""

    def __init__(self, *args):
        super().__init__(*args)
        self.encoder.body[0].weight.requires_grad_(False)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_frozen_parameter_stays_and_the_run_resumes(fresh_runs, monkeypatch, named, optimiser):
    named(Frozen)
    settings = Settings(preset="smoke", method="own", optimiser=optimiser, checkpoint_seconds=0, **TINY)
    step, taken = loop.take_step, []

    def stopping(training, state):
        step(training, state)
        taken.append(1)
        if len(taken) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "take_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, progress=False)
    resumed = pretrain(settings, progress=False)
    assert len(taken) == 13  # the sixth was taken twice
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / "whole"))
    whole = pretrain(settings, progress=False)
    assert (resumed.folder / "encoder.safetensors").read_bytes() == (whole.folder / "encoder.safetensors").read_bytes()
    assert timeless(resumed.history) == timeless(whole.history)
    images, encoder = load_images("digits"), load_encoder(whole)
    begin = initial_method(whole.settings, images.format).encoder
    assert torch.equal(encoder.body[0].weight, begin.body[0].weight)
    assert not torch.equal(encoder.body[4].weight, begin.body[4].weight)


# --- Views --------------------------------------------------------------------------------------------------------


class ManyViews(Method):
    """Two large views and three small ones, which are to resemble the mean of the large ones. It logs nothing."""

    def views(self):
        return [View("none", None, 2), View("crop:0.3:1", 16, 3)]

    def forward(self, batch, progress):
        h = [self.encoder(view) for view in batch.views]
        self.seen = [tuple(view.shape) for view in batch.views]
        return Output(sum((x - (h[0] + h[1]) / 2).square().mean() for x in h[2:]))


def test_views_of_any_number_and_size_reach_a_method_in_order(named):
    named(ManyViews)
    training = begun(method="own", encoder="cnn", pool="avg", **TINY)
    (entry, *_) = history = train(training)
    assert training.method.seen == [(32, 1, 28, 28)] * 2 + [(32, 1, 16, 16)] * 3
    assert set(entry) == {"epoch", "loss", "gradient_norm", "lr", "images", "seconds"}  # no chance, nothing logged
    assert history[-1]["loss"] < entry["loss"]
    images = training.data[:32]
    views = training.make_views(images, torch.Generator().manual_seed(0))
    plain = training.method.encoder.prepare(images)
    torch.testing.assert_close(views[0], plain)
    torch.testing.assert_close(views[1], plain)
    assert not any(torch.equal(a, b) for a, b in pairwise(views[2:]))  # each with its own draws


def test_the_second_views_may_have_a_policy_of_their_own():
    training = begun(augment="none", second_augment="crop", **TINY)
    first, second = training.make_views(training.data, torch.Generator())
    plain = training.method.encoder.prepare(training.data)
    torch.testing.assert_close(first, plain)
    assert not any(torch.allclose(a, b) for a, b in zip(second[:8], plain, strict=False))


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_both_views_share_batch_statistics(method):
    training, seen = begun(method=method, **TINY), []
    training.method.encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    take_steps(training, 1)
    assert seen == [64]


def test_labels_reach_only_a_method_that_needs_them():
    assert begun(**TINY).labels is None
    training, batches = begun(method="supervised", **TINY), []
    training.method.register_forward_hook(lambda module, args, out: batches.append(args[0]))
    state = begin_epoch(training, 0)
    loop.take_step(training, state)
    (batch,) = batches
    assert torch.equal(batch.labels, training.labels[state.order[:32]])
    assert begun(method="supervised", **TINY).method.loss_range(32) == (pytest.approx(math.log(10)), 0.0)


# --- What may go wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "poison"), [("the loss", math.nan), ("the gradient", math.inf)])
def test_a_diverged_run_stops_with_its_step_and_keeps_the_last_good_state(fresh_runs, monkeypatch, what, poison):
    settings = Settings(preset="smoke", checkpoint_seconds=0, **TINY)
    step, taken = loop.take_step, []

    def poisoned(training, state):
        taken.append(1)
        parameter = next(training.method.parameters())
        if len(taken) == 7 and what == "the loss":
            with torch.no_grad():
                parameter.fill_(poison)
        hook = parameter.register_hook(lambda gradient: gradient * (poison if len(taken) == 7 else 1))
        step(training, state)
        hook.remove()

    monkeypatch.setattr(loop, "take_step", poisoned)
    said = rf"{what}.* no longer finite at step 7 of 12 \(epoch 2, seed 0\): lr=.* too high"
    with pytest.raises(RunError, match=said):
        pretrain(settings, progress=False)
    (folder,) = (path for path in fresh_runs.iterdir() if path.is_dir())
    assert not (folder / "encoder.safetensors").exists()
    position = load_state(folder)["position"]
    assert (position["epoch"], position["step"]) == (1, 2)
    monkeypatch.setattr(loop, "take_step", step)
    resumed = (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes()
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / "whole"))
    assert resumed == (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (dict(temperature=0.01), "or a temperature above 0.01"),
        (dict(method="byol", warmup_epochs=0.5), "or a longer warm-up"),
        (dict(method="byol"), r"try lr=0.0005\. The last good"),
    ],
)
def test_what_to_do_about_a_diverged_training_is_the_methods_to_say(parameters, said):
    training = begun(**parameters, **TINY)
    state = begin_epoch(training, 1)
    state.first_bad[0] = 4
    with pytest.raises(RunError, match=said):
        loop.check(training, state)


def test_the_next_epoch_begins_with_nothing_counted():
    training = begun(**TINY)
    state = begin_epoch(training, 0)
    state.first_bad[0], state.sums[0] = 4, 5.0
    assert begin_epoch(training, 1, state) is state
    loop.check(training, state)
    assert (state.epoch, state.step, state.sums.tolist()) == (1, 0, [0.0] * 3)


def test_training_draws_from_no_generator_but_its_own():
    before = torch.get_rng_state()
    for method in TRAINED:
        take_steps(begun(method=method, **TINY), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", TRAINED)
def test_bfloat16_trains_like_float32(method):
    few = dict(method=method, lr=1e-3, **TINY)
    low, high = (train(begun(precision=p, **few))[-1]["loss"] for p in ("bfloat16", "float32"))
    assert low != high
    assert low == pytest.approx(high, rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("method", TRAINED)
def test_a_gpu_takes_the_same_step_without_waiting(method):
    cpu, gpu = (begun(method=method, precision="float32", device=d, lr=1e-9, **TINY) for d in ("cpu", "cuda"))
    views = cpu.make_views(cpu.data[:32], torch.Generator().manual_seed(0))
    fixed = dataclasses.replace(gpu, make_views=lambda images, draws: [view.cuda() for view in views])
    state = begin_epoch(gpu, 0)
    loop.take_step(gpu, state)  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.take_step(gpu, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    gpu.method.load_state_dict(cpu.method.state_dict())  # queues and centres have moved on
    states = [begin_epoch(cpu, 0), begin_epoch(gpu, 0)]
    loop.take_step(dataclasses.replace(cpu, make_views=lambda images, draws: views), states[0])
    loop.take_step(fixed, states[1])
    torch.testing.assert_close(states[1].sums.cpu(), states[0].sums, atol=1e-3, rtol=1e-3)
    for (name, a), b in zip(gpu.method.named_parameters(), cpu.method.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad.cpu(), b.grad, atol=1e-3, rtol=1e-2, msg=name)


def test_progress_is_a_share_of_the_whole_training(named):
    seen = []

    class Watched(SimCLR):
        def forward(self, batch, progress):
            seen.append((int(progress.step), float(progress.share)))
            return super().forward(batch, progress)

        def after_step(self, progress):
            seen.append((int(progress.step), float(progress.share)))

    named(Watched)
    train(begun(method="own", **TINY))
    assert seen == [(step, pytest.approx(step / 12)) for step in range(12) for _ in range(2)]
