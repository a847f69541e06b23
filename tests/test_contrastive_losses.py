"""InfoNCE among the keys of a batch and SupCon; and what the tests of all new losses check with."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrastive.losses import batch_info_nce, nt_xent, sup_con

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_nonzero", "unique", "equal")


def assert_same(ours, theirs, inputs, device, stopped=()):
    """That a loss and its gradients, in float32 on a device, are those of an independent implementation in float64.

    1e-5 is allowed: of the loss, and of the largest entry of each gradient. stopped: which inputs get no gradient.
    """
    own = [z.detach().to(device, torch.float32, copy=True).requires_grad_() for z in inputs]
    other = [z.detach().double().requires_grad_() for z in inputs]
    loss, expected = ours(*own), theirs(*other)
    assert (loss.dtype, loss.shape, expected.dtype) == (torch.float32, (), torch.float64)
    torch.testing.assert_close(loss.detach().double().cpu(), expected.detach(), atol=0, rtol=1e-5)
    loss.backward()
    expected.backward()
    for i, (z, r) in enumerate(zip(own, other, strict=True)):
        if i in stopped:
            assert z.grad is None
        else:
            assert r.grad.abs().max() > 1e-4  # else there is nothing to compare
            torch.testing.assert_close(z.grad.double().cpu(), r.grad, atol=1e-5 * r.grad.abs().max().item(), rtol=0)


def assert_float32_under_autocast(function, inputs, device):
    """That all tensors a function gives are float32, and the same with bfloat16 autocast as without it."""
    for dtype in (torch.bfloat16, torch.float32):
        given = [z.to(device, dtype) for z in inputs]
        with torch.autocast(device, dtype=torch.bfloat16):
            found = tree_leaves(function(*given))
        for own, plain in zip(found, tree_leaves(function(*(z.float() for z in given))), strict=True):
            assert own.dtype == torch.float32
            torch.testing.assert_close(own, plain, atol=0, rtol=0)


class Operations(TorchDispatchMode):
    """Logs which operations are done, and refuses those for which Python would have to wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        masks = [t for t in tree_leaves(args[1:]) if isinstance(t, torch.Tensor) and t.dtype == torch.bool]
        by_mask = name.startswith(("index.", "index_put")) and masks  # how many entries has to be asked for
        assert not name.startswith(WAITS), name
        assert not by_mask, name
        return func(*args, **(kwargs or {}))


def assert_no_wait(loss, *inputs):
    """That neither a loss nor its gradient waits for a GPU."""
    given = [z.clone().requires_grad_() for z in inputs]
    with Operations():
        loss(*given).backward()


def test_waiting_would_be_noticed():
    x, mask = torch.randn(4), torch.tensor([True, False, True, True])
    for wait in (lambda: x[0].item(), lambda: x[mask], lambda: bool(mask.any()), lambda: torch.tensor(1.0)):
        with pytest.raises(AssertionError), Operations():
            wait()


def drawn(n, d, parts=2):
    """That many N x D projections, of lengths other than 1, each somewhat like the first."""
    torch.manual_seed(100 * n + d)
    first = 3 * torch.randn(n, d)
    return [first, *(first + 5 * torch.randn(n, d) for _ in range(parts - 1))]


# --- InfoNCE among the keys of a batch ----------------------------------------------------------------------------

SHAPES = [(3, 2), (7, 5), (16, 33)]


def batch_info_nce_loop(query, key, temperature):
    """Equation 1 of 2104.02057: the positive key, and as negatives those of the other images of the batch."""
    total = 0.0
    for i, q in enumerate(query):
        cosines = [q @ k / (q.norm() * k.norm()) for k in key.detach()]
        terms = [torch.exp(c / temperature) for c in cosines]
        total = total - torch.log(terms[i] / sum(terms))
    return total / len(query)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_batch_info_nce_equals_a_loop_and_trains_the_query_alone(shape, temperature, device):
    assert_same(
        lambda q, k: batch_info_nce(q, k, temperature)[0],
        lambda q, k: batch_info_nce_loop(q, k, temperature),
        drawn(*shape), device, stopped=(1,),
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_info_nce_equals_that_of_another_library(shape):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    one_each = torch.arange(shape[0])  # a copy for the keys: the same ones would mean that keys are the queries
    assert_same(
        lambda q, k: batch_info_nce(q, k, 0.2)[0],
        lambda q, k: losses.NTXentLoss(0.2)(q, one_each, ref_emb=k.detach(), ref_labels=one_each.clone()),
        drawn(*shape), "cpu", stopped=(1,),
    )  # fmt: skip


def alike(n):
    """Projections of one direction and of several lengths, so that rounding errors of their cosines differ."""
    torch.manual_seed(n)
    return (1 + torch.rand(n, 1)) * torch.randn(1, 300)


@pytest.mark.parametrize("n", [1, 2, 3, 37])
def test_batch_info_nce_of_keys_that_are_all_alike_is_ln_n_and_finds_none(n):
    loss, found = batch_info_nce(torch.randn(n, 300), alike(n), 0.2)
    assert loss.item() == pytest.approx(math.log(n), abs=1e-5)
    assert found.item() == (n == 1)  # there is no other key to take it for


def test_own_keys_found_are_those_nearer_than_all_others():
    query, key = drawn(40, 4)
    cosines = F.normalize(query.double(), dim=1) @ F.normalize(key.double(), dim=1).T
    own = [row[i] == max(row) for i, row in enumerate(cosines.tolist())]
    assert 5 < sum(own) < 35
    found = batch_info_nce(query.requires_grad_(), key, 0.2)[1]
    assert found.item() == pytest.approx(sum(own) / 40)
    assert not found.requires_grad


# --- SupCon -------------------------------------------------------------------------------------------------------

# One class of one view, which has no positive; sizes that differ; two views of each image
LABELS = [[0, 0, 1, 0, 2, 1], [3, 1, 1, 3, 3, 1, 3, 3, 3], [0, 1, 0, 2, 3, 4, 2, 0] * 2]
LABELLED = [(torch.tensor(labels), d) for labels, d in zip(LABELS, (3, 4, 20), strict=True)]


def sup_con_loop(z, labels, temperature, outside=True):
    """Equation 2 of 2004.11362, the mean over positives outside of the logarithm; or equation 3, inside of it.

    Both as the mean over the anchors that have a positive.
    """
    total, anchors = 0.0, 0
    similarity = [[a @ b / (a.norm() * b.norm()) / temperature for b in z] for a in z]
    for i in range(len(z)):
        others = sum(torch.exp(similarity[i][a]) for a in range(len(z)) if a != i)
        shares = [torch.exp(similarity[i][p]) / others for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if shares:
            mean = sum(map(torch.log, shares)) / len(shares) if outside else torch.log(sum(shares) / len(shares))
            total, anchors = total - mean, anchors + 1
    return total / anchors


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("labels", "d"), LABELLED)
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_sup_con_equals_a_loop(labels, d, temperature, device):
    assert_same(
        lambda z: sup_con(z, labels.to(device), temperature)[0],
        lambda z: sup_con_loop(z, labels.tolist(), temperature),
        drawn(len(labels), d, 1), device,
    )  # fmt: skip


@pytest.mark.parametrize(("labels", "d"), LABELLED)
def test_sup_con_equals_that_of_another_library(labels, d):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    assert_same(
        lambda z: sup_con(z, labels, 0.1)[0],
        lambda z: losses.SupConLoss(0.1)(z, labels),
        drawn(len(labels), d, 1), "cpu",
    )  # fmt: skip


def test_the_mean_over_positives_stands_outside_of_the_logarithm():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])  # of one class: inside of it, all anchors would have ln 2
    of_each = [math.log(2 * math.cosh(1))] * 2 + [math.log(2)]
    loss = sup_con(z, torch.zeros(3, dtype=torch.int64), 1.0)[0].item()
    assert loss == pytest.approx(sum(of_each) / 3, rel=1e-6)
    assert loss == pytest.approx(sup_con_loop(z.double(), [0] * 3, 1.0).item(), rel=1e-6)
    assert sup_con_loop(z.double(), [0] * 3, 1.0, outside=False).item() == pytest.approx(math.log(2))
    assert loss > math.log(2) + 0.2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sup_con_of_two_views_and_as_many_classes_as_images_is_nt_xent(shape, device):
    labels = torch.arange(shape[0], device=device).repeat(2)
    assert_same(
        lambda a, b: sup_con(torch.cat([a, b]), labels, 0.3)[0],
        lambda a, b: nt_xent(a, b, 0.3).double(),
        drawn(*shape), device,
    )  # fmt: skip


@pytest.mark.parametrize("labels", [[0, 0, 1], [0] * 5, [0, 0, 1, 1, 2] * 8])
@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0])
def test_sup_con_of_projections_that_are_all_alike_is_a_matter_of_their_number(labels, temperature):
    z = alike(len(labels)).requires_grad_()
    loss, found = sup_con(z, torch.tensor(labels), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(len(labels) - 1), abs=1e-6 / temperature + 1e-5)
    assert found.item() == (set(labels) == {0})  # no view of another class is as near
    assert z.grad.abs().max() < 1e-6 / temperature


@pytest.mark.parametrize("m", [1, 5])
def test_sup_con_without_any_positive_is_0_and_so_is_its_gradient(m):
    z = torch.randn(m, 3, requires_grad=True)
    loss, found = sup_con(z, torch.arange(m), 0.1)
    loss.backward()
    assert (loss.item(), found.item()) == (0, 0)
    assert torch.equal(z.grad, torch.zeros(m, 3))


def test_gradients_of_sup_con_are_right_at_the_lowest_temperatures():
    labels = [0, 0, 1, 1, 2, 0]  # of the fifth view there is no other
    z = torch.tensor([[3.0, 1], [1, 3], [-3, 1], [2, 1], [1, -1], [-1, -2]])
    expected = z.double().requires_grad_()
    angles = F.normalize(expected, dim=1)
    # Where exponentials would overflow, the logarithm of their sum is about the largest exponent
    logits = (angles @ angles.T / 1e-3).fill_diagonal_(-math.inf)
    logs = [[logits[i, p] - logits[i].max() for p in range(6) if p != i and labels[p] == labels[i]] for i in range(6)]
    reference = -sum(sum(own) / len(own) for own in logs if own) / 5
    reference.backward()
    z.requires_grad_()
    loss = sup_con(z, torch.tensor(labels), 1e-3)[0]
    loss.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    torch.testing.assert_close(z.grad.double(), expected.grad, atol=1e-5 * expected.grad.abs().max().item(), rtol=0)


def test_top1_of_sup_con_is_how_often_the_nearest_view_is_of_the_same_class():
    (z,) = drawn(41, 3, 1)
    labels = torch.tensor([*(i % 4 for i in range(40)), 4])  # of the last there is no other
    z = z + 3 * F.one_hot(labels % 3, 3)
    cosines = F.normalize(z.double(), dim=1) @ F.normalize(z.double(), dim=1).T
    nearest = cosines.fill_diagonal_(-2).argmax(1)
    expected = sum((labels[nearest] == labels)[:40].tolist()) / 40
    assert 0.2 < expected < 0.8
    found = sup_con(z.requires_grad_(), labels, 0.1)[1]
    assert found.item() == pytest.approx(expected)
    assert not found.requires_grad


# --- Both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_both_losses_are_in_float32_under_autocast(device):
    labels = torch.arange(12, device=device) % 5
    assert_float32_under_autocast(lambda q, k: batch_info_nce(q, k, 0.1), drawn(12, 6), device)
    assert_float32_under_autocast(lambda z: sup_con(z, labels, 0.1), drawn(12, 6, 1), device)


def test_neither_loss_waits_for_a_gpu():
    labels = torch.arange(12) % 5
    assert_no_wait(lambda q, k: sum(batch_info_nce(q, k, 0.1)), *drawn(12, 6))
    assert_no_wait(lambda z: sum(sup_con(z, labels, 0.1)), *drawn(12, 6, 1))
