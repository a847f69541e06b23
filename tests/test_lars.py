"""LARS, against the paper's algorithm written out and against lightly; and what holds for a step of any optimiser: it
goes on exactly when a training is resumed, and does not wait for the device."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrastive import Settings, processor
from contrastive.methods import decay_groups
from contrastive.settings import OPTIMISERS
from contrastive.training import begin_epoch, graph, loop, train
from contrastive.training.checkpoint import load_state, pack, save_state, unpack
from contrastive.training.lars import LARS
from contrastive.training.optimisers import build_optimiser, learning_rate, rates_on_device, set_rate

from .recorded import Recording
from .test_graph import SMALL, losses_of, weights
from .trainings import begun, take_steps, timeless

CPU = torch.device("cpu")
TINY = dict(epochs=2, base_channels=2, n_images=128, batch_size=32)
STEPS, DECAY = 10, 0.1
SETTINGS = Settings(optimiser="lars", lr=1.0, weight_decay=DECAY, epochs=2, warmup_epochs=0.8).optimiser
RATES = [learning_rate(SETTINGS, step, STEPS, STEPS // 2) for step in range(STEPS)]
LAYERS = ("0.weight", "4.weight")  # of the network: neither biases nor norms


def network():
    """A convolution, BatchNorm and a linear layer, float64, all of whose parameters are drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4)).double()
        for p in made.parameters():
            nn.init.normal_(p, std=0.5)
    return made


def gradients(model, step):
    """Of the cross entropy of a step's batch."""
    draws = torch.Generator().manual_seed(step)
    images = torch.randn(8, 1, 6, 6, generator=draws, dtype=torch.float64)
    labels = torch.randint(4, (8,), generator=draws)
    first = next(model.parameters())
    return torch.autograd.grad(F.cross_entropy(model(images.to(first.dtype)), labels), list(model.parameters()))


def taken(model, optimiser, rates=None):
    """Ten steps of an optimiser; with rates, the learning rate is set before each. Returns the parameters by name."""
    for step in range(STEPS):
        for group in optimiser.param_groups if rates else []:
            set_rate(group, rates[step])
        for p, g in zip(model.parameters(), gradients(model, step), strict=True):
            p.grad = g
        optimiser.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def written_out(model, rates):
    """Ten steps by algorithm 1 of 1708.03888, with momentum 0.9 and trust coefficient 0.001, in float64."""
    velocity = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    for step, lr in enumerate(rates):
        for (name, p), gradient in zip(model.named_parameters(), gradients(model, step), strict=True):
            w, g = p.detach().numpy(), gradient.numpy()
            local, decay = 1.0, 0.0
            if name in LAYERS:
                decay = DECAY
                local = 0.001 * np.sqrt((w**2).sum()) / (np.sqrt((g**2).sum()) + decay * np.sqrt((w**2).sum()))
            velocity[name] = 0.9 * velocity[name] + lr * local * (g + decay * w)
            w -= velocity[name]  # the parameter's own memory
    return {name: p.detach() for name, p in model.named_parameters()}


# --- The algorithm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "on_device", "tolerance"), [("float64", False, 1e-10), ("float32", True, 1e-4)])
def test_ten_steps_are_those_of_the_papers_algorithm_while_the_learning_rate_changes(dtype, on_device, tolerance):
    model = network().to(getattr(torch, dtype))
    optimiser = build_optimiser(decay_groups(model.parameters()), SETTINGS, CPU)
    assert isinstance(optimiser, LARS)
    if on_device:
        rates_on_device(optimiser, CPU)
    start, expected = network().state_dict(), written_out(network(), RATES)
    for name, p in taken(model, optimiser, RATES).items():
        moved = (expected[name] - start[name]).norm()
        assert (p.double() - expected[name]).norm() < tolerance * moved, name
    assert len(set(RATES)) == STEPS


def test_lightly_takes_the_same_steps_while_the_learning_rate_stays():
    theirs, ours = network(), network()
    lightly = pytest.importorskip("lightly.utils.lars").LARS
    groups = [
        {"params": [p for name, p in theirs.named_parameters() if (name in LAYERS) == layer], "weight_decay": decay}
        for layer, decay in ((True, DECAY), (False, 0.0))
    ]
    expected = taken(theirs, lightly(groups, lr=1.0, momentum=0.9, eps=0.0))
    optimiser = build_optimiser(decay_groups(ours.parameters()), SETTINGS, CPU)
    for name, p in taken(ours, optimiser, [1.0] * STEPS).items():
        torch.testing.assert_close(p, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("decay", "cases"),  # weights, gradient -> by how much the weights fall
    [
        (0.0, [([3, 4], [0, 2], [0, 0.05]), ([0, 0], [3, 4], [30, 40]), ([3, 4], [0, 0], [0, 0])]),
        (0.1, [([3, 4], [0, 2], [0.006, 0.048]), ([0, 0], [3, 4], [30, 40]), ([3, 4], [0, 0], [0.03, 0.04])]),
        (0.1, [([0, 0], [0, 0], [0, 0]), ([30, 40], [0, 2e-9], [0.3, 0.4])]),
    ],
)
def test_each_tensor_has_its_own_ratio_also_without_weights_or_gradient(decay, cases):
    parameters = []
    for w, g, _ in cases:
        parameters.append(nn.Parameter(torch.tensor(w, dtype=torch.float64)))
        parameters[-1].grad = torch.tensor(g, dtype=torch.float64)
    LARS(parameters, lr=10.0, weight_decay=decay).step()
    for p, (w, _, fall) in zip(parameters, cases, strict=True):
        torch.testing.assert_close(w - p.detach().numpy(), np.array(fall, dtype=float), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_biases_and_norms_have_neither_ratio_nor_decay_and_a_group_can_ask_for_the_ratio(decay):
    model, prototypes = network(), nn.Parameter(torch.ones(2, 8, dtype=torch.float64))
    groups = decay_groups(model.parameters())
    groups.append({"params": [prototypes], "lr_share": 1.0, "decay_share": 0.0, "adapted": True})
    assert "adapted" not in groups[0]
    optimiser = build_optimiser(groups, SETTINGS.model_copy(update={"weight_decay": decay}), CPU)
    prototypes.grad = torch.full_like(prototypes, 5.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p, g in zip(model.parameters(), gradients(model, 0), strict=True):
        p.grad = g
    optimiser.step()
    for name, p in model.named_parameters():
        step = (before[name] - p.detach()) / SETTINGS.lr
        if name in LAYERS:  # of the length that the trust coefficient says, if nothing decays
            length = step.norm() / before[name].norm()
            assert length == pytest.approx(0.001, rel=1e-9) if decay == 0 else length < 0.001
        else:
            torch.testing.assert_close(step, p.grad)
    torch.testing.assert_close(1 - prototypes.detach(), torch.full_like(prototypes, 0.001 * SETTINGS.lr))


def test_parameters_without_a_gradient_stay_and_gradients_are_left_alone():
    first, later = (nn.Parameter(torch.full((2, 2), 2.0)) for _ in range(2))
    optimiser = LARS([{"params": [first, later]}, {"params": []}], lr=100.0)
    loss = optimiser.step(lambda: first.sum().backward() or 7.0)
    assert loss == 7.0
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 1.8))  # by 100 * 0.001 * |w| / |g|, 4 / 2
    assert torch.equal(first.grad, torch.ones(2, 2))
    assert torch.equal(later.detach(), torch.full((2, 2), 2.0))
    assert later not in optimiser.state
    optimiser.zero_grad()
    optimiser.step()
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 1.8))  # without a gradient, no momentum either
    first.grad, later.grad = torch.ones(2, 2), torch.ones(2, 2)
    optimiser.zero_grad(set_to_none=False)
    later.grad.fill_(1.0)
    optimiser.step()
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 1.8 - 0.9 * 0.2))  # with one that is 0, momentum
    torch.testing.assert_close(later.detach(), torch.full((2, 2), 1.8))
    assert [{name: value.shape for name, value in kept.items()} for kept in optimiser.state.values()] == [
        {"momentum_buffer": (2, 2)}
    ] * 2


# --- As a part of a training ----------------------------------------------------------------------------------------


def test_learning_rates_on_the_device_give_the_same_bits():
    found = []
    for on_device in (False, True):
        model = network().float()
        optimiser = build_optimiser(decay_groups(model.parameters()), SETTINGS, CPU)
        if on_device:
            rates_on_device(optimiser, CPU)
        found.append(taken(model, optimiser, RATES))
    assert all(torch.equal(p, found[1][name]) for name, p in found[0].items())


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_no_step_waits_for_the_device(name, monkeypatch):
    assert name in OPTIMISERS
    monkeypatch.setattr(processor, "on_gpu", lambda x: True)  # as on a GPU
    training = begun(method="simclr", optimiser=name, **TINY)
    rates_on_device(training.optimiser, CPU)
    state = begin_epoch(training, 0)
    with Recording() as recording:  # which refuses what reads from the device
        for _ in range(training.steps_of_epoch):
            loop.take_step(training, state)
    seen = {operation.name() for operation, *_ in recording.operations}
    expected = {"lars": "aten::_foreach_norm.Scalar"}.get(name, f"aten::_fused_{name}_.tensor_lr")
    assert expected in seen
    assert not any(operation.startswith("aten::lift_fresh") for operation in seen)  # which writes to the device


@pytest.mark.parametrize(
    ("name", "on_device"), [("lars", False), ("lars", True), ("sgd", False), ("sgd", True), ("adamw", False)]
)
def test_a_stopped_training_goes_on_with_the_same_bits(tmp_path, name, on_device):
    def new():
        training = begun(optimiser=name, lr=0.5 if name == "lars" else 0.01, weight_decay=0.01, **TINY)
        if on_device and name != "lars":
            rates_on_device(training.optimiser, CPU)
        return training

    whole, stopped, again = new(), new(), new()
    if on_device:  # as a GPU's checkpoint; LARS goes on with numbers, as on a CPU
        rates_on_device(stopped.optimiser, CPU)
    _, state = take_steps(stopped, 3)
    save_state(tmp_path, pack(stopped, state, []))
    state, history = unpack(load_state(tmp_path), again, tmp_path)
    remembered = again.optimiser.state_dict()["state"]
    for i, kept in stopped.optimiser.state_dict()["state"].items():
        assert kept.keys() == remembered[i].keys()
        assert all(torch.equal(value, remembered[i][part]) and value.any() for part, value in kept.items())
    assert len(remembered) == len([p for p in again.method.parameters() if p.requires_grad])
    assert timeless(train(again, state, history)) == timeless(train(whole))
    assert torch.equal(weights(again), weights(whole))


def test_a_step_that_was_recorded_once_trains_as_steps_that_are_taken(monkeypatch):
    monkeypatch.setattr(processor, "on_gpu", lambda x: True)
    parameters = SMALL | dict(optimiser="lars", lr=2.0, weight_decay=0.01)
    one_by_one, played = begun(**parameters), begun(**parameters)
    expected = losses_of(one_by_one, 30)
    assert losses_of(played, 30, played_from=graph.WARM_UP) == expected
    assert torch.equal(weights(one_by_one), weights(played))
    assert sum(expected[-5:]) < sum(expected[:5])  # it does learn


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_replays_what_it_would_compute(precision):
    more = SMALL | dict(optimiser="lars", lr=2.0, weight_decay=0.01, device="cuda", precision=precision)
    replayed, again, one_by_one = begun(**more), begun(**more), begun(cuda_graph=False, **more)
    histories = [timeless(train(training)) for training in (replayed, again, one_by_one)]
    assert replayed.graph.captured
    assert not one_by_one.graph.captured
    assert histories[0] == histories[1]  # the same bits, with the same seed
    assert torch.equal(weights(replayed), weights(again))
    for a, b in zip(histories[0], histories[2], strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    torch.testing.assert_close(weights(replayed), weights(one_by_one), rtol=1e-2, atol=1e-3)
