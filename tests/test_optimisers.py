"""Optimisers: learning rates, weight decay, and each parameter group's share of both."""

import math

import pytest
import torch
from torch import nn

from contrastive import Settings
from contrastive.methods import decay_groups
from contrastive.methods.simclr import SimCLR
from contrastive.settings import METHODS
from contrastive.training import loop
from contrastive.training.optimisers import build_optimiser, learning_rate

from .trainings import begun, take_steps

CPU = torch.device("cpu")
TINY = dict(epochs=3, base_channels=2, n_images=128, batch_size=32)


@pytest.fixture
def named(monkeypatch):
    """A function that gives a method a name, `own`, for this test."""
    return lambda cls: monkeypatch.setitem(METHODS._entries, "own", cls)


def test_learning_rate_warms_up_then_falls_as_half_a_cosine():
    settings = Settings(epochs=10, warmup_epochs=2, lr=1.0)
    rate = [learning_rate(settings.optimiser, step, 50, 5) for step in range(50)]
    assert rate[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    falling = rate[10:]
    assert falling == pytest.approx([0.5 * (1 + math.cos(math.pi * (i + 1) / 41)) for i in range(40)])
    constant = settings.replace(schedule="constant").optimiser
    assert {learning_rate(constant, step, 50, 5) for step in range(10, 50)} == {1.0}
    assert {learning_rate(settings.optimiser, step, 50, 5, "constant") for step in range(10, 50)} == {1.0}


def test_weight_decay_spares_biases_and_norms():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decayed, spared = build_optimiser(
        decay_groups(module.parameters()), Settings(weight_decay=0.1).optimiser, CPU
    ).param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize(("name", "cls"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_optimisers_are_torchs(name, cls):
    groups = decay_groups([nn.Parameter(torch.zeros(2, 2))], lr_share=0.5)
    optimiser = build_optimiser(groups, Settings(optimiser=name, weight_decay=0.2).optimiser, CPU)
    assert type(optimiser).__name__ == cls
    assert optimiser.defaults.get("momentum", 0.9) == 0.9
    assert optimiser.defaults.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.2, 0.0]


class Grouped(SimCLR):
    """SimCLR whose encoder learns at a third of the rate, its matrices with half the decay, and whose head learns at a
    constant rate without any."""

    def parameter_groups(self):
        encoder = [
            {**group, "decay_share": group["decay_share"] / 2} for group in decay_groups(self.encoder.parameters())
        ]
        head = {"params": list(self.head.parameters()), "lr_share": 1.0, "decay_share": 0.0, "schedule": "constant"}
        return [*({**group, "lr_share": 1 / 3} for group in encoder), head]


def test_each_group_has_its_share_of_the_learning_rate_and_of_the_decay(named):
    named(Grouped)
    training = begun(method="own", optimiser="sgd", lr=0.1, weight_decay=0.3, warmup_epochs=0, **TINY)
    before = [(name, p, p.detach().clone()) for name, p in training.method.named_parameters()]
    _, state = take_steps(training, 1)
    peak = learning_rate(training.settings.optimiser, 0, 12, 4)
    assert 0.09 < peak < 0.1  # the cosine has begun
    for name, p, start in before:
        lr = peak / 3 if name.startswith("encoder") else 0.1
        decay = 0.15 if name.startswith("encoder") and p.ndim >= 2 else 0.0
        torch.testing.assert_close(p.detach(), start - lr * (p.grad + decay * start), msg=name)
    while state.step < training.steps_of_epoch:
        loop.take_step(training, state)
    rates = [group["lr"] for group in training.optimiser.param_groups]
    assert rates == pytest.approx([learning_rate(training.settings.optimiser, 3, 12, 4) / 3] * 2 + [0.1])
