"""What a training step takes: its time, and its memory, against a hand count and PyTorch's own."""

import gc
import weakref

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from contrastive import Settings, resolve
from contrastive.data import split
from contrastive.training import begin_epoch, footprint, start
from contrastive.training.footprint import _Living, step_cost, step_memory
from contrastive.training.loop import take_step

SMALL = dict(preset="smoke", base_channels=4, general="none")


def begun(**given):
    """A training after its first step, and its state before another one."""
    settings, images = resolve(Settings(**SMALL, **given))
    index = split(images, settings.data.n_images, 0).pretrain
    training = start(settings, images.format, images.train[index], images.train_labels[index])
    state = begin_epoch(training, 0)
    take_step(training, state)
    return training, begin_epoch(training, 0, state)


def test_living_bytes_are_those_of_a_hand_count():
    with _Living() as living:
        a = torch.zeros(1000)
        b = a * 2
        assert (living.now, living.most) == (8000, 8000)
        del a
        c = b + 1
        c.add_(1)  # in place
        d = c.view(10, 100)  # the same bytes
        assert (living.now, living.most) == (8000, 8000)
        e = torch.ones(500, dtype=torch.int64)
        assert (living.now, living.most) == (12000, 12000)
        del b, c
        assert living.now == 8000  # a view keeps them
    del d, e
    assert (living.now, living.most) == (0, 12000)


def test_a_gradient_and_what_it_needs_are_counted():
    w = torch.ones(100, requires_grad=True)
    with _Living() as living:
        y = (w * 3).exp()  # whose backward needs the result; the product is given back
        assert (living.now, living.most) == (400, 800)
        y.sum().backward()
    assert w.grad.numel() == 100
    del y
    assert living.now == 400  # the gradient


@pytest.mark.parametrize("method", ["simclr", "byol", "barlow_twins"])
def test_the_memory_of_a_step_is_what_pytorchs_profiler_sees(method):
    training, state = begun(method=method)
    ours = step_memory(training, state)
    assert step_memory(training, begin_epoch(training, 0, state)) == ours
    training.optimiser.zero_grad()
    begin_epoch(training, 0, state)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        take_step(training, state)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert 0.95 * most < ours <= most  # which also sees what is made and freed inside an operation


def test_what_lasts_is_the_weights_and_what_adam_remembers():
    settings, _ = resolve(Settings(**SMALL))
    training, _ = begun()
    method = training.method
    trained = sum(p.numel() for p in method.parameters())
    steps = len(list(method.parameters()))  # Adam counts them for each
    other = sum(b.numel() * b.element_size() for b in method.buffers())
    assert step_cost(settings).lasting == 4 * (3 * trained + steps) + other


def test_a_second_network_takes_memory_that_lasts():
    simclr, byol = (step_cost(resolve(Settings(**SMALL, method=method))[0]) for method in ("simclr", "byol"))
    assert 1.1 < byol.bytes / simclr.bytes < 2.5
    assert byol.lasting > 1.2 * simclr.lasting


def test_of_several_steps_the_middle_one_counts(monkeypatch):
    seconds = iter([2.0, 3.0, 90.0, 1.0])  # somebody else used the machine
    monkeypatch.setattr(footprint, "_timed_step", lambda training, state: next(seconds))
    assert step_cost(resolve(Settings(**SMALL))[0]).seconds == 2.5  # an epoch has four
    assert next(seconds, None) is None


def test_memory_is_not_looked_at_where_nobody_asks(monkeypatch):
    monkeypatch.setattr(footprint, "step_memory", lambda *args: pytest.fail("looked at"))
    assert step_cost(resolve(Settings(**SMALL))[0], memory=False).bytes == 0


def test_nothing_is_left_of_a_training_that_was_timed(monkeypatch):
    kept, real = [], footprint.start
    monkeypatch.setattr(footprint, "start", lambda *args: kept.append(weakref.ref(t := real(*args))) or t)
    before = torch.get_rng_state()
    settings, images = resolve(Settings(**SMALL, batch_size=512))  # an epoch has one step
    cost = step_cost(settings, images)
    gc.collect()
    assert cost.seconds > 0
    assert [ref() for ref in kept] == [None]
    assert torch.equal(torch.get_rng_state(), before)
