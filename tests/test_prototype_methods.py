"""SwAV and DINO: prototypes that are frozen or of unit length, balanced assignments, a teacher, its centre."""

import pytest
import torch
import torch.nn.functional as F

from contrastive.losses import sinkhorn
from contrastive.methods import Batch, Progress, swav
from contrastive.methods.base import cosines, scaled_gradient, thawed
from contrastive.training import begin_epoch, loop

from .trainings import begun

FEW = dict(base_channels=2, pool="avg", n_images=40, batch_size=8, epochs=4, lr=0.01, warmup_epochs=0, local_views=2,
           local_view_size=16, precision="float32", hidden_dim=16, projection_dim=6, n_prototypes=5)  # fmt: skip
METHODS = ("swav", "dino")
DECAYED = {"adam": 0.1, "adamw": 0.5, "sgd": 0.5, "lars": 0.5}  # by the optimiser's name


def each_step(training, n):
    """Take n steps. Yields the number of each that was taken."""
    state = begin_epoch(training, 0)
    for k in range(n):
        loop.take_step(training, state)
        yield k
        if state.step == training.steps_of_epoch:
            begin_epoch(training, state.epoch + 1, state)


# --- Prototypes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", DECAYED)
@pytest.mark.parametrize("name", METHODS)
def test_frozen_prototypes_stay_to_the_last_bit_and_then_move(name, optimiser):
    training = begun(method=name, optimiser=optimiser, weight_decay=DECAYED[optimiser], freeze_epochs=1.4, **FEW)
    method, drawn, weights = training.method, training.method.prototypes.clone(), training.method.head[0].weight.clone()
    teacher = method.teacher_prototypes.clone() if name == "dino" else None
    for k in each_step(training, 12):
        assert torch.equal(method.prototypes, drawn) == (k < 7), k  # 1.4 epochs of five steps
        if teacher is not None:
            assert torch.equal(method.teacher_prototypes, teacher) == (k < 7), k
        assert not torch.equal(method.head[0].weight, weights)


@pytest.mark.parametrize("optimiser", DECAYED)
def test_prototypes_of_swav_have_unit_length_before_and_after_each_step(optimiser):
    training = begun(method="swav", optimiser=optimiser, freeze_epochs=0, **FEW | dict(lr=0.5))
    assert training.method.prototypes.norm(dim=1).tolist() == pytest.approx([1] * 5, abs=1e-6)
    before = training.method.prototypes.clone()
    for _ in each_step(training, 10):
        assert training.method.prototypes.norm(dim=1).tolist() == pytest.approx([1] * 5, abs=1e-6)
    assert (training.method.prototypes - before).norm() > 1e-4


def test_prototypes_of_dino_count_by_their_direction():
    training = begun(method="dino", **FEW)
    method, views = training.method, training.make_views(training.data[:8], torch.Generator())
    before = method(Batch(views), Progress(0, 20)).loss
    with torch.no_grad():
        method.prototypes.mul_(torch.tensor([[0.1], [3], [1], [20], [0.5]]))
        method.teacher_prototypes.mul_(7)
    assert method(Batch(views), Progress(0, 20)).loss.item() == pytest.approx(before.item(), rel=1e-5)


@pytest.mark.parametrize("steps_of_epoch", [1, 3, 39])
def test_freezing_ends_with_the_epoch_that_was_asked_for(steps_of_epoch):
    usual = begun(method="swav", **FEW).settings
    for epochs in range(1, 200):  # times their inverse, not all of these are exactly 1
        settings = usual.replace(epochs=epochs)
        for frozen in (0, 1, min(epochs, 2)):
            for step in (frozen * steps_of_epoch - 1, frozen * steps_of_epoch):
                for now in (step, torch.tensor(step)):
                    found = thawed(frozen, settings, Progress(now, epochs * steps_of_epoch))
                    assert found.dtype == torch.bool
                    assert bool(found) == (step == frozen * steps_of_epoch), (epochs, frozen, step)


@pytest.mark.parametrize("name", METHODS)
def test_no_weight_decay_is_for_prototypes_and_lars_adapts_their_steps(name):
    training = begun(method=name, optimiser="lars", weight_decay=0.1, **FEW)
    (group,) = (g for g in training.optimiser.param_groups if any(p is training.method.prototypes for p in g["params"]))
    assert len(group["params"]) == 1
    assert (group["weight_decay"], group["lr_share"], group["adapted"]) == (0, 1, True)


def test_a_scaled_gradient_leaves_the_value():
    x = torch.randn(3, requires_grad=True)
    for factor in (torch.tensor(False), torch.tensor(True), torch.tensor(0.3)):
        x.grad = None
        y = scaled_gradient(x, factor)
        assert torch.equal(y, x)
        (2 * y).sum().backward()
        torch.testing.assert_close(x.grad, torch.full((3,), 2 * float(factor)))


# --- Assignments --------------------------------------------------------------------------------------------------


def test_scores_and_assignments_are_computed_in_float32_where_the_network_is_not(monkeypatch):
    training = begun(method="swav", **FEW | dict(precision="bfloat16"))
    method, seen, made = training.method, [], []
    monkeypatch.setattr(swav, "sinkhorn", lambda scores, epsilon: seen.append(scores) or sinkhorn(scores, epsilon))
    method.head.register_forward_hook(lambda module, args, out: made.append(out))
    views = training.make_views(training.data[:8], torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        method(Batch(views), Progress(0, 20))
        assigned = sinkhorn(seen[0], 0.05)
    assert [x.dtype for x in made] == [torch.bfloat16] * 2
    assert [(x.dtype, x.shape) for x in seen] == [(torch.float32, (8, 5))] * 2  # each large view by itself
    projections, prototypes = F.normalize(made[0].double(), dim=1), method.prototypes.double()
    torch.testing.assert_close(torch.cat(seen).double(), projections @ prototypes.T, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(assigned, sinkhorn(seen[0], 0.05))
    torch.testing.assert_close(assigned.sum(1), torch.ones(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_reaches_the_assignments_that_are_predicted(name):
    """The gradient is that of targets that are numbers."""
    training = begun(method=name, freeze_epochs=0, **FEW)
    method, views = training.method, training.make_views(training.data[:8], torch.Generator())
    heads = []
    method.head.register_forward_hook(lambda module, args, out: heads.append(out))
    method(Batch(views), Progress(10, 20)).loss.backward()
    gradient = method.prototypes.grad.clone()
    z, prototypes = torch.cat(heads).detach(), method.prototypes.detach().clone().requires_grad_()
    scores = cosines(z, F.normalize(prototypes, dim=1) if name == "dino" else prototypes).split(8)
    if name == "swav":
        targets, temperature = [sinkhorn(x, method.own.epsilon) for x in scores[:2]], method.own.temperature
    else:
        shifted = (method.teacher_scores - method.centre) / method.own.teacher_temperature_end
        targets, temperature = shifted.softmax(1).split(8), method.own.student_temperature
    losses = [-(targets[j] * (scores[i] / temperature).log_softmax(1)).sum(1).mean()
              for i in range(4) for j in range(2) if i != j]  # fmt: skip
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(gradient, prototypes.grad, atol=1e-6, rtol=1e-4)


# --- DINO's teacher -----------------------------------------------------------------------------------------------


def test_the_centre_moves_after_the_step_and_is_kept():
    training = begun(method="dino", centre_momentum=0.75, **FEW)
    method, views = training.method, training.make_views(training.data[:8], torch.Generator())
    assert torch.equal(method.centre, torch.zeros(1, 5))
    method(Batch(views), Progress(0, 20))
    assert torch.equal(method.centre, torch.zeros(1, 5))
    scores = method.teacher_scores
    assert scores.shape == (16, 5)  # of both large views
    method.after_step(Progress(0, 20))
    torch.testing.assert_close(method.centre, scores.mean(0, keepdim=True) / 4)
    assert torch.equal(method.state_dict()["centre"], method.centre)


def test_the_teachers_temperature_rises_over_the_first_tenth():
    method = begun(method="dino", teacher_temperature=0.02, teacher_temperature_end=0.06, **FEW).method
    for step in (lambda k: k, torch.tensor):  # a number, or a tensor as in training
        seen = [method.teacher_temperature(Progress(step(k), 200)).item() for k in (0, 5, 10, 20, 21, 199)]
        assert seen == pytest.approx([0.02, 0.03, 0.04, 0.06, 0.06, 0.06])


def test_the_teacher_is_as_sure_as_its_temperature_is_low():
    method = begun(method="dino", **FEW).method
    views = [torch.randn(8, 1, 28, 28) for _ in range(2)]
    sure = []
    for temperature in (1e-4, 0.04, 100):
        method.own = method.own.model_copy(update=dict(teacher_temperature_end=temperature))
        sure.append(method(Batch(views), Progress(10, 20)).log["certainty"].item())
    assert sure[0] > 0.95
    assert sure[0] > sure[1] > sure[2]
    assert sure[2] == pytest.approx(0, abs=1e-4)
