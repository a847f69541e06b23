"""Steps of the real loop, compared with a reference in float64 whose gradient descent is written out.

A reference is a copy of a method. With its networks, `loss` and `after` do what the paper says; all that the method
keeps is then compared with it by name, step by step. `references` has one for each method.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from contrastive.training import begin_epoch, loop

CLOSE = dict(atol=1e-4, rtol=1e-4)


class Reference:
    """What a method does, in float64.

    FOLLOWERS: by the name of a network, or of a tensor, that of the one it follows.
    """

    FOLLOWERS: dict[str, str] = {}

    def __init__(self, training):
        self.net = copy.deepcopy(training.method).double()
        self.own, self.steps, self.lr = training.method.own, training.steps, training.settings.optimiser.lr
        self.trained = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        self.velocity = {name: torch.zeros_like(p) for name, p in self.trained.items()}

    def each(self, views, encoder, *heads):
        """What networks make of each view. The two large ones are in one batch, the small ones in another."""
        made = []
        for same in filter(len, (views[:2], views[2:])):
            x = encoder.body(torch.cat(same))
            for head in heads:
                x = head(x)
            made += x.chunk(len(same))
        return made

    def crossed(self, views):
        """The pairs of each view's number and the number of another, large view."""
        return [(i, j) for i in range(len(views)) for j in range(2) if i != j]

    def loss(self, views, k):
        """The loss of step k, from 0."""
        raise NotImplementedError

    def rate(self, name, k):
        """The learning rate of a parameter."""
        return self.lr

    def step(self, loss, k):
        """One step down, with a momentum of 0.9. Returns the gradients by name."""
        gradients = dict(zip(self.trained, torch.autograd.grad(loss, self.trained.values()), strict=True))
        with torch.no_grad():
            for name, p in self.trained.items():
                self.velocity[name].mul_(0.9).add_(gradients[name])
                p.sub_(self.rate(name, k) * self.velocity[name])
            self.after(k)
        return gradients

    def momentum(self, k):
        """That of the networks that follow: it rises to 1 by half a cosine."""
        return 1 - (1 - self.own.momentum) * (math.cos(math.pi * k / self.steps) + 1) / 2

    def after(self, k):
        """What is done after step k."""
        weights = dict(self.net.named_parameters())
        for slow, fast in self.FOLLOWERS.items():
            m = self.momentum(k)
            for name, p in weights.items():
                if name == slow or name.startswith(slow + "."):
                    p.copy_(m * p + (1 - m) * weights[fast + name.removeprefix(slow)])


def recorded(training):
    """The same training, and the list to which the views of its steps will be added."""
    seen = []

    def make_views(images, draws):
        seen.append(training.make_views(images, draws))
        return seen[-1]

    return dataclasses.replace(training, make_views=make_views), seen


def assert_follows(training, reference, steps):
    """Take steps, and compare each with the reference's: the loss, gradients, and all that the method keeps. Yields
    the number of each step that was taken, when the reference has its loss but has not gone on, and that loss."""
    training, views = recorded(training)
    method, state, before = training.method, begin_epoch(training, 0), 0.0
    for k in range(steps):
        loop.take_step(training, state)
        seen = [view.double() for view in views[k]]
        if training.labels is not None:
            reference.labels = training.labels[state.index]
        loss = reference.loss(seen, k)
        assert state.sums[0].item() - before == pytest.approx(loss.item(), abs=1e-4), f"loss of step {k}"
        before = state.sums[0].item()
        yield k, loss
        gradients = reference.step(loss, k)
        ours = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        assert ours.keys() == gradients.keys()
        assert_alike(ours, gradients, f"gradient of step {k}")
        assert_alike(method.state_dict(), reference.net.state_dict(), f"after step {k}")
        reference.net.load_state_dict(method.state_dict())  # so that rounding errors do not add up


def assert_alike(ours, theirs, what):
    """That tensors of the same names have the same values."""
    for name, tensor in ours.items():
        said = lambda m, name=name: f"{what}, {name}: {m}"  # noqa: E731
        torch.testing.assert_close(tensor.double(), theirs[name].double(), **CLOSE, msg=said)
