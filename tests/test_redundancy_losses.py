"""Barlow Twins and VICReg against loops in float64 and another library; their levels, and what does not matter."""

import pytest
import torch

from contrastive.losses import barlow_twins, vicreg

from .test_contrastive_losses import DEVICES, assert_float32_under_autocast, assert_no_wait, assert_same, drawn

SHAPES = [(6, 4), (17, 9), (9, 25)]  # more images than dimensions, and fewer
VICREG = {"all": (25.0, 25.0, 1.0), "invariance": (3.0, 0, 0), "variance": (0, 2.0, 0), "covariance": (0, 0, 0.7)}


def small(n, d):
    """Two views whose dimensions have standard deviations on both sides of 1, and means that are not 0."""
    first, second = drawn(n, d)
    return [0.3 * first + 1.5, 0.17 * second + 1.5]


def centred(z):
    """A view's dimensions, each less its mean over the batch."""
    return [column - sum(column) / len(column) for column in z.T]


def barlow_twins_loop(z1, z2, off_diagonal):
    """Equations 1 and 2 of 2103.03230, dimensions standardised by BatchNorm as in the authors' code: N divides."""
    n, total = len(z1), 0.0
    first, second = ([x / torch.sqrt(x @ x / n + 1e-5) for x in centred(z)] for z in (z1, z2))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            total = total + ((1 - a @ b / n) ** 2 if i == j else off_diagonal * (a @ b / n) ** 2)
    return total


def vicreg_loop(z1, z2, invariance, variance, covariance):
    """Equations 1 to 6 of 2105.04906, the invariance divided by D as algorithm 1 has it: N - 1 divides variances."""
    n, d = z1.shape
    s = sum((a - b) @ (a - b) for a, b in zip(z1, z2, strict=True)) / (n * d)
    v, c = 0.0, 0.0
    for z in (z1, z2):
        columns = centred(z)
        for i, x in enumerate(columns):
            v = v + torch.clamp(1 - torch.sqrt(x @ x / (n - 1) + 1e-4), min=0) / d
            c = c + sum((x @ y / (n - 1)) ** 2 for j, y in enumerate(columns) if j != i) / d
    return invariance * s + variance * v + covariance * c


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("off_diagonal", [0.0, 0.005, 2.0])
def test_barlow_twins_equals_a_loop(shape, off_diagonal, device):
    assert_same(
        lambda a, b: barlow_twins(a, b, off_diagonal)[0],
        lambda a, b: barlow_twins_loop(a, b, off_diagonal),
        small(*shape), device,
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_equals_that_of_another_library(shape):
    losses = pytest.importorskip("lightly.loss")
    assert_same(lambda a, b: barlow_twins(a, b, 0.02)[0], losses.BarlowTwinsLoss(0.02), small(*shape), "cpu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", VICREG.values(), ids=VICREG)
def test_vicreg_equals_a_loop(shape, weights, device):
    assert_same(lambda a, b: vicreg(a, b, *weights)[0], lambda a, b: vicreg_loop(a, b, *weights), small(*shape), device)


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg_equals_that_of_another_library(shape):
    losses = pytest.importorskip("lightly.loss")
    other = losses.VICRegLoss(9.0, 2 * 7.0, 1.5)  # like the authors' code it has half the variance term of the paper
    assert_same(lambda a, b: vicreg(a, b, 9.0, 7.0, 1.5)[0], other, small(*shape), "cpu")


# --- Levels -------------------------------------------------------------------------------------------------------


def apart(n_bits):
    """2^n x (2^n - 1) of 1 and -1: dimensions of mean 0 that have nothing in common."""
    signs = torch.ones(1, 1)
    for _ in range(n_bits):
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs[:, 1:]


@pytest.mark.parametrize("level", [0.0, 0.1, -3.0])
def test_levels_of_projections_that_are_all_alike(level):
    views = [torch.full((12, 5), level, requires_grad=True) for _ in range(2)]
    loss, correlation = barlow_twins(*views, 0.005)
    assert loss.item() == pytest.approx(5, rel=1e-4)
    assert correlation.item() == pytest.approx(0, abs=1e-4)
    other, log = vicreg(*views, 25.0, 10.0, 1.0)
    assert other.item() == pytest.approx(2 * 0.99 * 10, rel=1e-5)
    assert log["std"].item() == pytest.approx(0.01, rel=1e-3)
    assert log["covariance"].item() == pytest.approx(0, abs=1e-9)
    (loss + other).backward()
    assert all(z.grad.isfinite().all() for z in views)


def test_levels_of_views_that_agree_in_dimensions_that_have_nothing_in_common():
    z = apart(4)
    loss, correlation = barlow_twins(z, z, 1.0)
    assert 0 <= loss.item() < 1e-8
    assert correlation.item() == pytest.approx(1, abs=1e-4)
    assert barlow_twins(z, -z, 1.0)[0].item() == pytest.approx(4 * 15, rel=1e-4)  # all C_ii are -1
    assert barlow_twins(z, z.roll(1, 1), 0.3)[0].item() == pytest.approx(15 + 0.3 * 15, rel=1e-4)  # C permutes
    assert barlow_twins(*[z[:, :1].repeat(1, 7)] * 2, 0.3)[0].item() == pytest.approx(0.3 * 42, rel=1e-4)  # C_ij: 1
    loss, log = vicreg(z, z, 25.0, 25.0, 1.0)
    assert (loss.item(), log["covariance"].item()) == (0, 0)  # standard deviations above 1 cost nothing
    assert log["std"].item() == pytest.approx((16 / 15) ** 0.5, rel=1e-4)


def test_what_is_left_beside_the_diagonal_is_not_lost_to_rounding_errors():
    torch.manual_seed(0)
    z = apart(4) + 3e-5 * torch.randn(16, 15)
    covariance = z.double().T.cov()
    rest = (covariance.square().sum() - covariance.diagonal().square().sum()).item()
    assert 1e-8 < rest < 1e-6
    found = vicreg(z, z, 0.0, 0.0, 1.0)[0].item()
    assert found == pytest.approx(2 * rest / 15, rel=0.01)
    correlation = z.double().T.corrcoef() / (1 + 1e-5)  # about: of variances of 1
    rest = (correlation.square().sum() - correlation.diagonal().square().sum()).item()
    found = (barlow_twins(z, z, 1.0)[0] - barlow_twins(z, z, 0.0)[0]).item()
    assert found == pytest.approx(rest, rel=0.01)


# --- The batch, dimensions, views ---------------------------------------------------------------------------------


def test_what_each_loss_makes_of_the_same_images_twice():
    views = small(10, 6)
    twice = [z.repeat(2, 1) for z in views]
    for own, again in zip(barlow_twins(*views, 0.1), barlow_twins(*twice, 0.1), strict=True):
        assert again.item() == pytest.approx(own.item(), rel=1e-5)  # N divides: nothing changes
    assert vicreg(*twice, 1.0, 0, 0)[0].item() == pytest.approx(vicreg(*views, 1.0, 0, 0)[0].item(), rel=1e-5)
    own, again = (vicreg(*z, 0, 0, 1.0)[0].item() for z in (views, twice))
    assert again == pytest.approx(own * (2 * 9 / 19) ** 2, rel=1e-5)  # N - 1 divides covariances


def test_what_is_logged_is_of_the_loss_and_without_gradient():
    views = [z.requires_grad_() for z in small(30, 6)]
    correlation = barlow_twins(*views, 0.1)[1]
    pairs = [torch.stack([a, b]).corrcoef()[0, 1].item() for a, b in zip(*(z.detach().T for z in views), strict=True)]
    assert correlation.item() == pytest.approx(sum(pairs) / 6, rel=1e-4)
    log = vicreg(*views, 25.0, 25.0, 1.0)[1]
    assert log["std"].item() == pytest.approx(torch.cat([z.detach().std(0) for z in views]).mean().item(), rel=1e-3)
    assert log["covariance"].item() == pytest.approx(vicreg(*views, 0, 0, 1.0)[0].item(), rel=1e-6)
    assert not any(value.requires_grad for value in (correlation, *log.values()))


def test_only_vicreg_sees_the_scale_and_neither_sees_an_offset_of_a_dimension():
    torch.manual_seed(1)
    (a, b), offset, scale = drawn(20, 5), torch.randn(5), torch.rand(5) + 1
    plain, changed = barlow_twins(a, b, 0.1)[0], barlow_twins(scale * a + offset, b / scale, 0.1)[0]
    assert changed.item() == pytest.approx(plain.item(), rel=1e-4)
    losses = [vicreg(x, y, 1.0, 1.0, 1.0)[0].item() for x, y in ((a, b), (a + offset, b + offset), (2 * a, 2 * b))]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] > 2 * losses[0]


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
def test_gradients_are_right_where_some_dimensions_do_not_vary(which):
    views = small(8, 5)
    for i in which:
        views[i][:, 1] = 0.0
        views[i][:, 3] = 2.0
    assert_same(lambda a, b: barlow_twins(a, b, 0.1)[0], lambda a, b: barlow_twins_loop(a, b, 0.1), views, "cpu")
    weights = VICREG["all"]
    assert_same(lambda a, b: vicreg(a, b, *weights)[0], lambda a, b: vicreg_loop(a, b, *weights), views, "cpu")


# --- Both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_both_losses_are_in_float32_under_autocast(device):
    assert_float32_under_autocast(lambda a, b: barlow_twins(a, b, 0.1), small(12, 6), device)
    assert_float32_under_autocast(lambda a, b: vicreg(a, b, 25.0, 25.0, 1.0), small(12, 6), device)


def test_neither_loss_waits_for_a_gpu():
    assert_no_wait(lambda a, b: sum(barlow_twins(a, b, 0.1)), *small(12, 6))
    assert_no_wait(lambda a, b: vicreg(a, b, 25.0, 25.0, 1.0)[0], *small(12, 6))
