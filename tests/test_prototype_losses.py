"""Assignments to prototypes, SwAV's and DINO's, against loops in float64 and another library."""

import math

import pytest
import torch
import torch.nn.functional as F

from contrastive.losses import prototype_cross_entropy, share_in_use, sharpened, sinkhorn

from .test_contrastive_losses import DEVICES, Operations, assert_float32_under_autocast, assert_no_wait, assert_same

SHAPES = [(6, 4), (17, 9), (5, 12)]  # more images than prototypes, and fewer


def cosines(n, k, views=1):
    """N x K cosines of directions in 8 dimensions with the same prototypes, for each view."""
    torch.manual_seed(100 * n + k)
    prototypes = F.normalize(torch.randn(k, 8), dim=1)
    return [F.normalize(torch.randn(n, 8), dim=1) @ prototypes.T for _ in range(views)]


# --- Balanced assignments -----------------------------------------------------------------------------------------


def sinkhorn_loop(scores, epsilon, iterations):
    """Section 3.1 of 2006.09882 entry by entry: Q = diag(u) exp(scores / epsilon) diag(v), K x N, whose rows are made
    to sum to 1/K and then its columns to 1/N, over and over; times N."""
    n, k = scores.shape
    q = [[math.exp(scores[i, j].item() / epsilon) for i in range(n)] for j in range(k)]
    for _ in range(iterations):
        q = [[x / sum(row) / k for x in row] for row in q]
        columns = [sum(row[i] for row in q) for i in range(n)]
        q = [[x / columns[i] / n for i, x in enumerate(row)] for row in q]
    return torch.tensor(q, dtype=torch.float64).T * n


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.01, 3), (0.5, 1), (0.05, 20)])
def test_sinkhorn_equals_a_loop(shape, epsilon, iterations, device):
    (scores,) = cosines(*shape)
    found = sinkhorn(scores.to(device).requires_grad_(), epsilon, iterations)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    expected = sinkhorn_loop(scores.double(), epsilon, iterations)
    torch.testing.assert_close(found.cpu().double(), expected, atol=1e-7, rtol=5e-5)  # exponents of up to 100


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_that_of_another_library(shape, iterations):
    other = pytest.importorskip("lightly.loss.swav_loss")
    (scores,) = cosines(*shape)
    expected = other.sinkhorn(scores.double(), iterations=iterations, epsilon=0.05)
    torch.testing.assert_close(sinkhorn(scores, 0.05, iterations).double(), expected, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (256, 192), (1, 3), (3, 1)])
@pytest.mark.parametrize("iterations", [3, 300])
def test_images_are_assigned_once_and_in_the_end_prototypes_are_used_alike(shape, iterations):
    n, k = shape
    found = sinkhorn(cosines(n, k)[0], 0.05, iterations)
    torch.testing.assert_close(found.sum(1), torch.ones(n))
    if iterations == 300:
        torch.testing.assert_close(found.sum(0), torch.full((k,), n / k), atol=0, rtol=1e-5)


def test_three_iterations_are_enough_for_about_as_much_of_each_prototype():
    (scores,) = cosines(256, 192)
    plain, balanced = (
        (q.sum(0) * 192 / 256 - 1).abs().max() for q in ((scores / 0.05).softmax(1), sinkhorn(scores, 0.05))
    )
    assert balanced < 0.4 < 2 < plain


def test_equal_scores_give_equal_shares():
    for level in (0.0, 1.0, -1e4, 1e4):
        torch.testing.assert_close(sinkhorn(torch.full((5, 8), level), 0.05), torch.full((5, 8), 1 / 8))
    by_image = torch.randn(6, 1).expand(6, 4)  # an image that is near all prototypes is not nearer to one
    torch.testing.assert_close(sinkhorn(by_image, 0.05), torch.full((6, 4), 1 / 4))
    by_prototype = torch.tensor([[1e4, 0, -1e4]]).expand(6, 3)  # nor do all images go to the one that all are near
    torch.testing.assert_close(sinkhorn(by_prototype, 0.05), torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize("scale", [1e4, 1e-4, 1e-30])
@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (3, 8)])
def test_huge_and_tiny_scores_give_assignments(scale, shape):
    torch.manual_seed(2)
    n, k = shape
    found = sinkhorn(scale * (2 * torch.rand(n, k) - 1), 0.05)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(n))
    found = sinkhorn(scale * torch.randn(n, k).sign(), 0.05, 300)
    assert found.isfinite().all()
    order = torch.randperm(6)
    signs = 1e4 * (2 * F.one_hot(order) - 1).float()
    torch.testing.assert_close(sinkhorn(signs, 0.05), F.one_hot(order).float())


def test_unlikely_assignments_are_not_all_held_for_alike():
    # Image 2 is far from both prototypes, but less far from the first; balance leaves it the nearer one.
    scores = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.2]])
    for epsilon in (0.05, 0.005):
        expected = sinkhorn_loop(scores.double() + 1.0, epsilon, 3)
        torch.testing.assert_close(sinkhorn(scores, epsilon).double(), expected, atol=1e-5, rtol=1e-5)


# --- Cross entropy of assignments ---------------------------------------------------------------------------------


def cross_entropy_loop(targets, scores, temperature):
    """Equation 2 of 2006.09882, and of 2104.14294: -sum of q log p, the mean over images."""
    total = 0.0
    for q, s in zip(targets.detach(), scores, strict=True):
        terms = [torch.exp(x / temperature) for x in s]
        total = total - sum(share * torch.log(term / sum(terms)) for share, term in zip(q, terms, strict=True))
    return total / len(scores)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_cross_entropy_equals_a_loop_and_trains_the_scores_alone(shape, temperature, device):
    scores, other = cosines(*shape, views=2)
    assert_same(
        lambda q, s: prototype_cross_entropy(q, s, temperature),
        lambda q, s: cross_entropy_loop(q, s, temperature),
        [(other / 0.3).softmax(1), scores], device, stopped=(0,),
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_swavs_loss_equals_that_of_another_library(shape):
    losses = pytest.importorskip("lightly.loss")

    def ours(large1, large2, small):
        q1, q2 = sinkhorn(large1, 0.05), sinkhorn(large2, 0.05)
        pairs = (q1, large2), (q1, small), (q2, large1), (q2, small)
        return torch.stack([prototype_cross_entropy(q, s, 0.1) for q, s in pairs]).mean()

    other = losses.SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    assert_same(ours, lambda a, b, small: other([a, b], [small]).squeeze(), cosines(*shape, views=3), "cpu")


def test_the_range_of_the_cross_entropy():
    targets = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    for scores in (torch.zeros(2, 3), torch.full((2, 3), 7.0)):
        assert prototype_cross_entropy(targets, scores, 0.1).item() == pytest.approx(math.log(3), rel=1e-6)
    right = torch.tensor([[1.0, -1, -1], [-1, 1, 1]])
    assert prototype_cross_entropy(targets, right, 1e-3).item() == pytest.approx(math.log(2) / 2, rel=1e-6)
    wrong = -right  # by 2, over the temperature
    assert prototype_cross_entropy(targets, wrong, 1e-3).item() == pytest.approx(
        ((2000 + math.log(2)) + (2000 + math.log(1))) / 2, rel=1e-6
    )


# --- A teacher's assignments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_teachers_assignments_equal_a_loop_and_have_no_gradient(shape, device):
    (scores,), centre = cosines(*shape), torch.linspace(-0.5, 0.7, shape[1])[None]
    for temperature in (0.04, torch.tensor(0.07, device=device)):
        found = sharpened(scores.to(device).requires_grad_(), centre.to(device), temperature)
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
        for row, own in zip(scores.detach().double(), found.cpu().double(), strict=True):
            terms = ((row - centre[0].double()) / float(temperature)).exp()
            torch.testing.assert_close(own, terms / sum(terms), atol=1e-9, rtol=2e-5)


def test_centre_and_temperature_work_against_each_other():
    (scores,) = cosines(9, 5)
    scores = scores + torch.tensor([3.0, 0, 0, 0, 0])  # one prototype that all images are near
    at_one = sharpened(scores, torch.zeros(1, 5), 0.04)
    assert share_in_use(at_one).item() == pytest.approx(1 / 5, abs=1e-4)
    centred = sharpened(scores, scores.mean(0, keepdim=True), 0.04)
    assert share_in_use(centred).item() > 0.6
    even = sharpened(scores, scores.mean(0, keepdim=True), 1e4)
    torch.testing.assert_close(even, torch.full((9, 5), 1 / 5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_dinos_loss_equals_that_of_another_library(shape):
    losses = pytest.importorskip("lightly.loss")
    n, k = shape
    *student, teacher1, teacher2 = cosines(n, k, views=6)  # two large views and two small ones
    centre = torch.linspace(-0.2, 0.3, k)[None]
    teacher = [teacher1, teacher2]

    def ours(*scores):
        targets = [sharpened(t, centre, 0.06) for t in teacher]
        pairs = [(i, j) for i in range(4) for j in range(2) if i != j]
        return torch.stack([prototype_cross_entropy(targets[j], scores[i], 0.1) for i, j in pairs]).mean()

    def theirs(*scores):
        loss = losses.DINOLoss(output_dim=k, student_temp=0.1)
        loss.center = centre[None].double()
        return loss([t.double() for t in teacher], list(scores), teacher_temp=0.06)

    assert_same(ours, theirs, student, "cpu")


# --- Prototypes in use --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 7, 1000])
def test_prototypes_in_use_are_counted_from_one_to_all(k):
    assert share_in_use(F.one_hot(torch.full((9,), k - 1), k)).item() == pytest.approx(1 / k, rel=1e-5)
    assert share_in_use(torch.full((9, k), 1 / k)).item() == pytest.approx(1, rel=1e-5)
    each = share_in_use(torch.eye(k, requires_grad=True))  # each image at another one: all are in use, too
    assert each.item() == pytest.approx(1, rel=1e-5)
    assert not each.requires_grad


def test_prototypes_in_use_between_both_ends():
    some = torch.eye(8)[[0, 3, 3, 0, 5, 5, 6, 6]]
    assert share_in_use(some).item() == pytest.approx(4 / 8, rel=1e-5)
    mean = torch.tensor([0.5, 0.3, 0.2, 0.0])
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert share_in_use(mean.expand(3, 4)).item() == pytest.approx(math.exp(entropy) / 4, rel=1e-5)


# --- All of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_all_are_in_float32_under_autocast(device):
    centre = torch.linspace(-0.5, 0.7, 7, device=device)[None]
    scores, other = cosines(9, 7, views=2)
    assert_float32_under_autocast(lambda s: sinkhorn(s, 0.05), [scores], device)
    assert_float32_under_autocast(lambda s: sharpened(s, centre, 0.04), [scores], device)
    assert_float32_under_autocast(lambda q, s: prototype_cross_entropy(q, s, 0.1), [other.softmax(1), scores], device)
    assert_float32_under_autocast(share_in_use, [other.softmax(1)], device)


def test_none_waits_for_a_gpu():
    scores, other = cosines(9, 7, views=2)
    assert_no_wait(lambda a, b: prototype_cross_entropy(sinkhorn(b, 0.05), a, 0.1), scores, other)
    centre, temperature = torch.zeros(1, 7), torch.tensor(0.04)
    assert_no_wait(lambda a, b: prototype_cross_entropy(sharpened(b, centre, temperature), a, 0.1), scores, other)
    with Operations():
        share_in_use(other)
