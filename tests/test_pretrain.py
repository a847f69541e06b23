import dataclasses
import importlib
import json
import math
import signal

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive import Settings, UserError, load_encoder, load_images, pretrain
from contrastive.augment.operations import Augment
from contrastive.training.checkpoint import load_state
from contrastive.data.images import resolve
from contrastive.encoders.cnn import build_encoder, projection_head
from contrastive.losses.ntxent import LOSSES
from contrastive.training.runs import code_hash, load_method
from contrastive.evaluation.probes import weights_hash
from contrastive.settings.model import OPERATIONS, RunError
from contrastive.training.loop import Training, initial_method, lr_schedule, parameter_groups, start

module = importlib.import_module("contrastive.training.runs")  # the package has a function of that name
SMOKE = Settings(preset="smoke", epochs=3, width=4)
MNIST_SHAPE = ((1, 28, 28), (0.1307,), (0.3081,))


def test_shapes_and_parameter_counts_of_the_cnn():
    encoder = build_encoder(Settings(), *MNIST_SHAPE)
    assert sum(p.numel() for p in encoder.parameters()) == 92_896
    assert encoder.feature_dim == 1152
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    prepared = encoder.prepare(images)
    torch.testing.assert_close(prepared, (images / 255 - 0.1307) / 0.3081)
    assert encoder(prepared).shape == (5, 1152)
    colour = build_encoder(Settings(), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    assert colour(torch.zeros(2, 3, 32, 32)).shape == (2, colour.feature_dim) == (2, 2048)


@pytest.mark.parametrize("size", [28, 29, 32])
def test_the_cnn_equals_its_plain_layers(size):
    torch.manual_seed(0)
    encoder = build_encoder(Settings(width=4), (1, size, size), (0.0,), (1.0,)).double().train()
    plain, channels = [], 1
    for out in (4, 8, 16):
        conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        plain += [conv, nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    reference = nn.Sequential(*plain).double()
    reference.load_state_dict({k.removeprefix("body."): v for k, v in encoder.state_dict().items() if "body." in k})
    x, weights = torch.randn(6, 1, size, size).double(), torch.randn(6, encoder.feature_dim)
    ours, theirs = encoder.body(x), reference(x).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(ours, theirs)
    for features, module in ((ours, encoder), (theirs, reference)):
        (features * weights).sum().backward()
        assert all(p.grad is not None for p in module.parameters())
    for p, q in zip(encoder.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("augment", ["digits", "simclr", "+".join(OPERATIONS)])
def test_no_operation_of_an_epoch_waits_for_the_device(augment):
    class Log(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(func.name())
            return func(*args, **(kwargs or {}))

    settings = resolve(SMOKE.but(augment=augment))
    training = start(settings, torch.randint(0, 256, (512, 1, 28, 28), dtype=torch.uint8))
    colour = Augment(augment, torch.full((3,), 0.5), torch.full((3,), 0.25))
    with Log() as log:
        training.epoch(0)
        colour(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), torch.Generator())
    assert "aten::_fused_adam_" in log.seen
    waits = (
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::lift_fresh",
        "aten::is_nonzero",
    )
    assert training.steps == 4
    assert [name for name in log.seen if name.startswith(waits)] == []


@pytest.mark.parametrize(
    ("kind", "count"), [("none", 0), ("linear", 1152 * 128 + 128), ("mlp", 1152 * 256 + 256 + 256 * 128 + 128)]
)
def test_projection_heads(kind, count):
    head = projection_head(kind, 1152, 128)
    assert sum(p.numel() for p in head.parameters()) == count
    assert head(torch.zeros(2, 1152)).shape == (2, 1152 if kind == "none" else 128)


def test_both_views_share_batch_statistics():
    method = initial_method(resolve(SMOKE)).train()
    seen = []
    method.encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    method(torch.randn(8, 1, 28, 28))
    assert seen == [8]


def test_the_second_views_may_have_a_policy_of_their_own():
    data = torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8)
    settings = resolve(SMOKE.but(augment="none", second_augment="crop"))
    training = start(settings, data)
    first, second = training.views(torch.arange(128), torch.Generator()).chunk(2)
    plain = training.method.encoder.prepare(data)
    torch.testing.assert_close(first, plain)
    assert not any(torch.allclose(a, b) for a, b in zip(second[:8], plain, strict=False))


def test_views_may_be_smaller_if_the_map_stays_as_large(fresh_runs):
    run = pretrain(SMOKE.but(view_size=24, epochs=1), progress=False)
    training = start(run.settings, load_images("digits").train[:128])
    assert training.views(torch.arange(4), torch.Generator()).shape == (8, 1, 24, 24)
    assert load_encoder(run).feature_dim == 9 * 16
    with pytest.raises(UserError, match="Use 24 to 31"):
        resolve(SMOKE.but(view_size=20))
    assert resolve(SMOKE.but(view_size=20, features="mean")).view_size == 20


def test_the_map_can_be_averaged(fresh_runs):
    run = pretrain(SMOKE.but(features="mean", epochs=1), progress=False)
    encoder, images = load_encoder(run), load_images("digits").test[:5]
    flat = build_encoder(run.settings.but(features="map"), *MNIST_SHAPE).eval()
    flat.load_state_dict(encoder.state_dict())
    x = encoder.prepare(images)
    torch.testing.assert_close(encoder(x), flat(x).view(5, 9, 16).mean(1))


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"nt_xent"}))
def test_every_loss_trains(fresh_runs, loss):
    run = pretrain(SMOKE.but(loss=loss, epochs=2), progress=False)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["lowest_loss"] <= run.history[-1]["chance_loss"]


def test_contrastive_accuracy_counts_nearest_partners():
    method = initial_method(resolve(SMOKE)).eval()
    views = torch.randn(6, 1, 28, 28)
    loss, log = method(torch.cat([views, views]))
    assert log["top1"].item() == 1.0
    assert loss < math.log(11)


def test_weight_decay_spares_biases_and_norms():
    decayed, spared = parameter_groups(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), 0.1)
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_learning_rate_warms_up_then_falls_as_half_a_cosine():
    settings = Settings(epochs=10, warmup_epochs=2, lr=1.0)
    rate = [lr_schedule(settings, 5)(step) for step in range(50)]
    assert rate[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    falling = rate[10:]
    assert falling == pytest.approx([0.5 * (1 + math.cos(math.pi * (i + 1) / 41)) for i in range(40)])
    assert set(map(lr_schedule(settings.but(schedule="constant"), 5), range(10, 50))) == {1.0}


def test_same_seed_same_bits_and_a_finished_run_is_loaded(tmp_path, monkeypatch):
    weights = []
    for name in ("a", "b"):
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / name))
        weights.append(weights_hash(load_encoder(pretrain(SMOKE, progress=False))))
    assert weights[0] == weights[1]
    run = pretrain(SMOKE, progress=False)
    before = (run.folder / "state.pt").stat().st_mtime_ns
    assert pretrain(SMOKE, progress=False).folder == run.folder
    assert (run.folder / "state.pt").stat().st_mtime_ns == before
    assert weights_hash(load_encoder(pretrain(SMOKE.but(seed=1), progress=False))) != weights[0]


def timeless(history):
    """A history without the times in it."""
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


@pytest.mark.parametrize("stop_after", [1, 4, 7, 12])  # steps; an epoch has four
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch, stop_after, number):
    def terminated(*args):
        raise TimeoutError

    whole = pretrain(SMOKE, progress=False)
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path))
    advance, taken = Training.advance, []

    def counted(self, position):
        taken.append((position.epoch, position.step))
        advance(self, position)
        if len(taken) == stop_after:
            signal.raise_signal(number)  # as if it came in the middle of this step

    monkeypatch.setattr(Training, "advance", counted)
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        with pytest.raises((KeyboardInterrupt, TimeoutError)):
            pretrain(SMOKE, progress=False)
        assert len(taken) == stop_after
        assert signal.getsignal(signal.SIGTERM) is terminated
        resumed = pretrain(SMOKE, progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [(epoch, step) for epoch in range(3) for step in range(4)]  # no step twice
    assert (resumed.folder / "encoder.safetensors").read_bytes() == (whole.folder / "encoder.safetensors").read_bytes()
    assert timeless(resumed.history) == timeless(whole.history)
    assert not (resumed.folder / "state.previous.pt").exists()


def test_a_run_is_files_that_others_can_read():
    run = pretrain(SMOKE, progress=False)
    assert json.loads((run.folder / "settings.json").read_text()) == json.loads(run.settings.canonical_json())
    lines = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0]["chance_loss"] == pytest.approx(math.log(2 * SMOKE.batch_size - 1))
    assert {"loss", "top1", "lr", "images", "seconds"} <= set(lines[0])
    encoder = load_encoder(run.folder)
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert weights_hash(load_method(run).encoder) == weights_hash(encoder) == weights_hash(load_encoder(run))


def test_a_run_by_older_code_says_so(monkeypatch):
    run = pretrain(SMOKE, progress=False)
    assert not run.code_changed
    monkeypatch.setattr(module, "code_hash", lambda *a: "another")
    assert pretrain(SMOKE, progress=False).code_changed
    assert len(code_hash()) == 16


def test_a_run_on_other_data_of_the_same_name_is_not_taken(fresh_runs, monkeypatch):
    run = pretrain(SMOKE, progress=False)
    other = dataclasses.replace(load_images("digits"), sha256="another")
    monkeypatch.setattr(module, "load_images", lambda settings: other)
    for name in ("encoder.safetensors", "state.pt"):
        with pytest.raises(UserError, match="other data of the same name"):
            pretrain(SMOKE, progress=False)
        (run.folder / name).unlink()
    assert pretrain(SMOKE, progress=False).folder == run.folder


@pytest.mark.parametrize(("what", "poison"), [("the loss", math.nan), ("the gradient", math.inf)])
def test_a_diverged_run_stops_with_its_step_and_keeps_the_last_good_state(fresh_runs, monkeypatch, what, poison):
    settings = SMOKE.but(checkpoint_seconds=0)
    step, taken = Training.step, []

    def poisoned(self, views, lr):
        taken.append(lr)
        if len(taken) == 7:
            parameter = next(self.method.parameters())
            if what == "the loss":
                with torch.no_grad():
                    parameter.fill_(poison)
            else:
                hook = parameter.register_hook(lambda gradient: gradient * poison)
                seen = step(self, views, lr)
                hook.remove()
                return seen
        return step(self, views, lr)

    monkeypatch.setattr(Training, "step", poisoned)
    with pytest.raises(
        RunError, match=rf"{what}.* no longer finite at step 7 of 12 \(epoch 2, seed 0\): lr=.* too high"
    ):
        pretrain(settings, progress=False)
    (folder,) = fresh_runs.glob("*/")
    assert not (folder / "encoder.safetensors").exists()
    position = load_state(folder)["position"]
    assert (position["epoch"], position["step"]) == (1, 2)
    monkeypatch.undo()
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs))
    resumed = (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes()
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / "whole"))
    assert resumed == (pretrain(settings, progress=False).folder / "encoder.safetensors").read_bytes()


def test_training_draws_from_no_generator_but_its_own():
    before = torch.get_rng_state()
    start(resolve(SMOKE), load_images("digits").train[:512]).epoch(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains_like_float32():
    low = pretrain(SMOKE.but(precision="bfloat16"), progress=False)
    high = pretrain(SMOKE.but(precision="float32"), progress=False)
    assert low.settings.run_name != high.settings.run_name
    assert low.history[-1]["loss"] == pytest.approx(high.history[-1]["loss"], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_takes_the_same_step_without_waiting():
    images = load_images("digits").train[:512]
    settings = resolve(SMOKE.but(precision="float32", device="cpu"))
    cpu, gpu = start(settings, images), start(settings.but(device="cuda"), images)
    views = cpu.views(torch.arange(128), torch.Generator().manual_seed(0))
    on_gpu = views.cuda()
    index, draws = torch.arange(128, device="cuda"), torch.Generator("cuda").manual_seed(0)
    gpu.step(gpu.views(index, draws), 0.0)  # what is set up once may wait
    expected = cpu.step(views, 0.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gpu.views(index, draws)
        got = gpu.step(on_gpu, 0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(got.cpu(), expected, atol=1e-3, rtol=1e-3)
    for a, b in zip(gpu.method.parameters(), cpu.method.parameters(), strict=True):
        torch.testing.assert_close(a.grad.cpu(), b.grad, atol=1e-3, rtol=1e-2)


def test_images_stay_uint8():
    assert load_images("digits").train.dtype == torch.uint8
