"""Every method against a few lines of float64 written from its paper, over steps of the real loop; with small views,
too. And losses against those of lightly and of pytorch-metric-learning."""

import pytest
import torch
import torch.nn.functional as F

from contrastive.methods import Batch, Progress
from contrastive.settings import METHODS

from . import references
from .stepwise import assert_follows
from .trainings import begun

FEW = dict(base_channels=2, pool="avg", n_images=40, batch_size=8, epochs=8, optimiser="sgd", lr=0.05,
           schedule="constant", warmup_epochs=0, weight_decay=0, precision="float32", projection_dim=6)  # fmt: skip
MLP = FEW | dict(hidden_dim=10)
PROTOTYPES = MLP | dict(n_prototypes=5, freeze_epochs=0.4)  # of five steps
CASES = {
    "simclr": (FEW | dict(temperature=0.3), references.SimCLR),
    "mocov2": (FEW | dict(temperature=0.3, momentum=0.8, queue_size=24), references.MoCo),  # it is full after 3 steps
    "mocov3": (MLP | dict(temperature=0.3, momentum=0.8), references.MoCoV3),
    "byol": (MLP | dict(momentum=0.8), references.BYOL),
    "simsiam": (MLP | dict(bottleneck_dim=4, epochs=2, schedule="cosine"), references.SimSiam),
    "barlow_twins": (MLP | dict(off_diagonal=0.1), references.BarlowTwins),
    "vicreg": (MLP | dict(lr=0.005), references.VICReg),
    "swav": (PROTOTYPES, references.SwAV),
    "dino": (PROTOTYPES | dict(momentum=0.8, centre_momentum=0.6, teacher_temperature_end=0.2), references.DINO),
    "supcon": (FEW | dict(temperature=0.3), references.SupCon),
}
LOCAL = dict(local_views=2, local_view_size=16)


def test_there_is_a_case_of_every_method_without_a_linear_layer_for_classes():
    assert CASES.keys() == set(METHODS) - {"supervised"}


@pytest.mark.parametrize("local", [{"local_views": 0}, LOCAL], ids=["two views", "with small views"])
@pytest.mark.parametrize("name", CASES)
def test_a_method_equals_a_few_lines_of_float64(name, local):
    parameters, reference = CASES[name]
    training = begun(method=name, **parameters, **local)
    theirs = reference(training)
    groups = [p for group in training.optimiser.param_groups for p in group["params"]]
    assert len(groups) == len(set(groups))
    assert set(groups) == {p for p in training.method.parameters() if p.requires_grad}
    slow = {name for name, _ in theirs.net.named_parameters()} - theirs.trained.keys()
    assert {name.partition(".")[0] for name in slow} == theirs.FOLLOWERS.keys()  # nothing else is left out
    losses = [loss.item() for _, loss in assert_follows(training, theirs, training.steps_of_epoch)]
    assert len(losses) == 5
    assert len({round(loss, 3) for loss in losses}) == 5
    assert all(p.grad is None for p in training.method.parameters() if not p.requires_grad)


def test_a_queue_as_long_as_a_batch_holds_the_last_one():
    training = begun(method="mocov2", **FEW, momentum=0.8, temperature=0.3, queue_size=8)
    for _ in assert_follows(training, references.MoCo(training), training.steps_of_epoch):
        assert torch.equal(training.method.queue, training.method.keys)


# --- Others' losses -----------------------------------------------------------------------------------------------


def outputs(module):
    """The list to which what a module puts out will be added."""
    seen = []
    module.register_forward_hook(lambda module, args, out: seen.append(out.detach().double()))
    return seen


def by_view(seen):
    """What two large and two small views became, in one batch for each size."""
    return [*seen[0].chunk(2), *seen[1].chunk(2)]


def simclr(loss, method, z):
    found = loss.NTXentLoss(method.own.temperature)
    return [found(a, b) for a, b in ((z[0], z[1]), *((large, small) for small in z[2:] for large in z[:2]))]


def barlow_twins(loss, method, z):
    found = loss.BarlowTwinsLoss(method.own.off_diagonal)
    return [found(a, b) for a, b in ((z[0], z[1]), *((large, small) for small in z[2:] for large in z[:2]))]


def vicreg(loss, method, z):
    found = loss.VICRegLoss(method.own.invariance, 2 * method.own.variance, method.own.covariance)  # theirs: the mean
    return [found(a, b) for a, b in ((z[0], z[1]), *((large, small) for small in z[2:] for large in z[:2]))]


def swav(loss, method, z):
    scores = [F.normalize(x, dim=1) @ method.prototypes.detach().double().T for x in z]
    return [loss.SwaVLoss(method.own.temperature, 3, method.own.epsilon)(scores[:2], scores[2:])]


@pytest.mark.parametrize("theirs", [simclr, barlow_twins, vicreg, swav])
def test_lightly_has_the_same_loss(theirs):
    loss = pytest.importorskip("lightly.loss")
    name = theirs.__name__
    training = begun(method=name, **CASES[name][0], **LOCAL)
    method, projections = training.method, outputs(training.method.head)
    ours = method(Batch(training.make_views(training.data[:8], torch.Generator())), Progress(3, 40)).loss
    found = theirs(loss, method, by_view(projections))
    assert ours.item() == pytest.approx(torch.stack([x.squeeze() for x in found]).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_lightly_has_the_same_negative_cosine(name):
    loss = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    training = begun(method=name, **CASES[name][0])
    method = training.method
    p, z = outputs(method.predictor), outputs(method.target_head if name == "byol" else method.head)
    ours = method(Batch(training.make_views(training.data[:8], torch.Generator())), Progress(3, 40)).loss
    (p1, p2), (z1, z2) = torch.cat(p).chunk(2), torch.cat(z).chunk(2)
    symmetric = (loss(p1, z2) + loss(p2, z1)) / 2
    assert ours.item() == pytest.approx((4 + 4 * symmetric if name == "byol" else symmetric).item(), rel=1e-5)


def test_lightly_has_the_same_loss_and_centre_of_dino():
    loss = pytest.importorskip("lightly.loss")
    training = begun(method="dino", **CASES["dino"][0], **LOCAL)
    method, own = training.method, training.method.own
    method.centre.copy_(torch.randn(1, 5) / 10)
    theirs = loss.DINOLoss(5, teacher_temp=0.2, student_temp=own.student_temperature, center_momentum=0.6)
    theirs.center = method.centre[None].double()
    student, teacher = outputs(method.head), outputs(method.teacher_head)
    progress = Progress(4, 40)  # a tenth
    ours = method(Batch(training.make_views(training.data[:8], torch.Generator())), progress).loss
    prototypes = F.normalize(method.prototypes.detach().double(), dim=1)
    scores = [F.normalize(x, dim=1) @ prototypes.T for x in by_view(student)]
    taught = [F.normalize(x, dim=1) @ prototypes.T for x in torch.cat(teacher).chunk(2)]
    assert ours.item() == pytest.approx(theirs(taught, scores).item(), rel=1e-5)
    method.after_step(progress)
    torch.testing.assert_close(method.centre.double(), theirs.center[0], atol=1e-6, rtol=1e-5)


def test_pytorch_metric_learning_has_the_same_loss_of_supcon():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    training = begun(method="supcon", **CASES["supcon"][0], **LOCAL)
    method, projections = training.method, outputs(training.method.head)
    labels = training.labels[:8]
    ours = method(Batch(training.make_views(training.data[:8], torch.Generator()), labels), Progress(3, 40)).loss
    z = torch.cat(by_view(projections))
    assert ours.item() == pytest.approx(losses.SupConLoss(0.3)(z, torch.cat([labels] * 4)).item(), rel=1e-5)
