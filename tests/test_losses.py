import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrastive import processor
from contrastive.losses import (
    LOSSES,
    chance_loss,
    cosine_regression,
    info_nce,
    lowest_loss,
    nt_xent,
    nt_xent_and_top1,
    ntxent,
)


def reference(z1, z2, temperature):
    """Equation 1 of 2002.05709 as a double loop in float64."""
    z = F.normalize(torch.cat([z1, z2]).double(), dim=1)
    n, total = len(z1), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        similarity = [torch.dot(z[i], z[k]) / temperature for k in range(2 * n) if k != i]
        total = total - torch.dot(z[i], z[j]) / temperature + torch.logsumexp(torch.stack(similarity), 0)
    return total / (2 * n)


@pytest.fixture(params=[("cpu", 1024), ("cpu", 3), ("gpu", 1024), ("gpu", 3)], ids=str)
def way(request, monkeypatch):
    """As on a processor or on a GPU; in one tile, or in several of which the last of each half is smaller."""
    device, tile = request.param
    monkeypatch.setattr(processor, "on_gpu", lambda x: device == "gpu")
    monkeypatch.setattr(ntxent, "TILE", tile)
    monkeypatch.setattr(ntxent, "TILE_GPU", tile)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.01, 0.025, 0.05, 0.5, 2.0])
def test_value_and_gradient_equal_a_double_loop(way, n, temperature):
    torch.manual_seed(n)
    ours = [torch.randn(n, 5, requires_grad=True) for _ in range(2)]
    theirs = [z.detach().double().requires_grad_() for z in ours]
    loss, expected = nt_xent(*ours, temperature), reference(*theirs, temperature)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    (3 * loss).backward()
    (3 * expected).backward()
    for z, r in zip(ours, theirs, strict=True):
        torch.testing.assert_close(z.grad.double(), r.grad, atol=1e-5, rtol=1e-4)


def softplus(x):
    return torch.log1p(torch.exp(x))


def pairwise_reference(z1, z2, scale, normalize, own, term, semi_hard):
    """The mean over anchors of own(s_p) and the mean of term(s_p, s) over their negatives, a double loop in float64."""
    z = torch.cat([z1, z2]).double()
    z = F.normalize(z, dim=1) if normalize else z
    n, total = len(z1), 0.0
    for i in range(2 * n):
        positive = z[i] @ z[(i + n) % (2 * n)]
        negatives = [z[i] @ z[k] for k in range(2 * n) if k not in (i, (i + n) % (2 * n))]
        terms = [term(positive, s, scale) for s in negatives if not semi_hard or s < positive]
        total = total + own(positive, scale) + (sum(terms) / len(terms) if terms else 0.0)
    return total / (2 * n)


@pytest.mark.parametrize("semi_hard", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("name", "own", "term"),
    [
        ("nt_logistic", lambda p, t: softplus(-p / t), lambda p, s, t: softplus(s / t)),
        ("margin_triplet", lambda p, m: 0.0, lambda p, s, m: torch.clamp(s - p + m, min=0)),
    ],
)
def test_the_papers_other_losses_equal_a_double_loop(name, own, term, normalize, semi_hard):
    torch.manual_seed(0)
    ours = [torch.randn(6, 5, requires_grad=True) for _ in range(2)]
    theirs = [z.detach().double().requires_grad_() for z in ours]
    loss, top1 = LOSSES[name + "_semi_hard" * semi_hard](*ours, 0.4, normalize)
    expected = pairwise_reference(*theirs, 0.4, normalize, own, term, semi_hard)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert top1.item() == nt_xent_and_top1(*ours, 0.4, normalize)[1].item()
    loss.backward()
    expected.backward()
    for z, r in zip(ours, theirs, strict=True):
        torch.testing.assert_close(z.grad.double(), r.grad, atol=1e-5, rtol=1e-4)


def test_semi_hard_negatives_do_not_silence_the_positive():
    apart = torch.eye(4, requires_grad=True)  # positives are opposite, so every negative is more similar
    loss, _ = LOSSES["nt_logistic_semi_hard"](apart, -torch.eye(4), 0.5, True)
    assert loss.item() == pytest.approx(softplus(torch.tensor(2.0)).item(), abs=1e-5)


def test_without_normalisation_nt_xent_compares_dot_products():
    torch.manual_seed(0)
    z1, z2 = (torch.randn(5, 4) for _ in range(2))
    z = torch.cat([z1, z2]).double()
    logits = [[(z[i] @ z[k]).item() / 0.7 if i != k else -math.inf for k in range(10)] for i in range(10)]
    expected = F.cross_entropy(torch.tensor(logits), torch.arange(10).roll(5))
    assert nt_xent(z1, z2, 0.7, normalize=False).item() == pytest.approx(expected.item(), rel=1e-5)
    assert nt_xent(3 * z1, z2, 0.7).item() == pytest.approx(nt_xent(z1, z2, 0.7).item(), rel=1e-5)
    long = [torch.randn(5, 4) * 100 for _ in range(2)]  # whose dot products no exponential stands
    assert nt_xent(*long, 0.1, normalize=False).isfinite()


def test_chance_and_lowest_losses_of_the_papers_other_losses():
    assert chance_loss(256, 0.5, "margin_triplet") == 0.5
    assert lowest_loss(256, 1.5, "margin_triplet") == pytest.approx(0.5)
    both = [softplus(torch.tensor(x)).item() for x in (-2.0, 2.0, 0.0)]
    assert chance_loss(256, 0.5, "nt_logistic_semi_hard") == pytest.approx(both[0] + both[1])
    assert lowest_loss(256, 0.5, "nt_logistic") == pytest.approx(both[0] + both[2])


@pytest.mark.parametrize("temperature", [0.025, 0.0249])
def test_opposite_projections_are_within_the_range_of_float32(temperature):
    # The smallest similarity there can be, at the temperature where the way of computing changes.
    z1 = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    z2 = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    expected = reference(z1.detach(), z2, temperature)
    loss = nt_xent(z1, z2, temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert z1.grad.isfinite().all()
    many = torch.ones(7000, 1)
    many[:3500] = -1  # opposite to their positives, which half of all other views are like
    level = math.log(math.exp(-2 / temperature) * 7000 + 6999) + 2 / temperature  # of an anchor
    assert nt_xent(many, -many, temperature).item() == pytest.approx(level, rel=1e-5)


def test_top1_counts_anchors_whose_positive_is_nearest(way):
    torch.manual_seed(0)
    z1 = torch.randn(50, 6)
    z2 = z1 + 0.7 * torch.randn(50, 6)
    z = F.normalize(torch.cat([z1, z2]).double(), dim=1)
    similarity = (z @ z.T).fill_diagonal_(-2)
    expected = (similarity.argmax(1) == torch.arange(100).roll(50)).double().mean().item()
    assert 0.1 < expected < 0.9
    for temperature in (0.5, 0.01):
        assert nt_xent_and_top1(z1, z2, temperature)[1].item() == pytest.approx(expected)
        assert nt_xent_and_top1(torch.ones(50, 6), torch.ones(50, 6), temperature)[1].item() == 0


def test_memory_grows_with_the_batch_not_with_its_square(monkeypatch):
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
            return out

    monkeypatch.setattr(ntxent, "TILE", 64)
    z1, z2 = (torch.randn(1000, 4, requires_grad=True) for _ in range(2))
    saved = []
    with Largest() as seen:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            loss = nt_xent(z1, z2, 0.5)
        loss.backward()
    assert sum(saved) < 10 * 2 * 1000 * 4  # projections a few times over, and no tile
    assert seen.numel == 2 * 1000 * 4  # of the projections themselves; a tile has half as many


@pytest.mark.parametrize("n", [1, 3, 256])
def test_identical_features_give_the_chance_level(n):
    z = torch.ones(n, 8)
    assert nt_xent(z, z).item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)
    assert chance_loss(n) == math.log(2 * n - 1)


def test_no_gradient_through_the_own_similarity():
    # With one image the softmax has a single term, so the loss is 0 whatever the projections are; a self-similarity
    # that were only subtracted would leave a gradient.
    z1, z2 = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    loss = nt_xent(z1, z2, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert z1.grad.abs().max() < 1e-6


def test_scale_of_projections_and_order_of_views_do_not_matter():
    torch.manual_seed(0)
    z1, z2 = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(nt_xent(z1, z2, 0.3), nt_xent(7 * z2, 0.1 * z1, 0.3))


@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_log_sum_exp_is_in_float32_under_autocast(temperature):
    torch.manual_seed(0)
    z1, z2 = torch.randn(64, 16), torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z1, z2, temperature)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nt_xent(z1, z2, temperature))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_projections_of_any_float_type(dtype):
    torch.manual_seed(0)
    z1, z2 = (torch.randn(8, 4).to(dtype).requires_grad_() for _ in range(2))
    loss = nt_xent(z1, z2)
    loss.backward()
    assert (loss.dtype, z1.grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(loss, nt_xent(z1.float(), z2.float()))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="N x D"):
        nt_xent(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ValueError, match="N at least 1"):
        nt_xent(torch.ones(0, 3), torch.ones(0, 3))
    for temperature in (0.0, torch.tensor(0.5)):
        with pytest.raises(ValueError, match="temperature"):
            nt_xent(torch.ones(2, 3), torch.ones(2, 3), temperature)


# --- Without a batch of negatives ------------------------------------------------------------------------------------


def test_cosine_regression_equals_a_loop_and_trains_the_prediction_alone():
    torch.manual_seed(0)
    prediction, target = (torch.randn(6, 5, requires_grad=True) for _ in range(2))
    p = prediction.detach().double().requires_grad_()
    rows = zip(p, target.detach().double(), strict=True)
    expected = sum((a / a.norm() - b / b.norm()).square().sum() for a, b in rows) / 6
    loss = cosine_regression(prediction, target)
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(prediction.grad.double(), p.grad, atol=1e-6, rtol=1e-4)
    assert target.grad is None


def test_the_range_of_cosine_regression():
    x = torch.randn(5, 4)
    assert cosine_regression(x, 3 * x).item() == pytest.approx(0, abs=1e-6)
    assert cosine_regression(x, -x).item() == pytest.approx(4, abs=1e-6)
    assert cosine_regression(torch.eye(4), torch.eye(4).roll(1, 0)).item() == pytest.approx(2, abs=1e-6)


def info_nce_reference(query, key, queue, temperature):
    """Equation 1 of 1911.05722 as a loop in float64."""
    total = 0.0
    for q, own in zip(query, key, strict=True):
        q, own = q / q.norm(), own / own.norm()
        logits = torch.stack([q @ k / temperature for k in (own, *queue)])
        total = total + torch.logsumexp(logits, 0) - logits[0]
    return total / len(query)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_equals_a_loop_and_trains_the_query_alone(temperature):
    torch.manual_seed(0)
    query, key = (torch.randn(6, 5, requires_grad=True) for _ in range(2))
    queue = F.normalize(torch.randn(9, 5), dim=1).requires_grad_()
    q = query.detach().double().requires_grad_()
    expected = info_nce_reference(q, key.detach().double(), queue.detach().double(), temperature)
    loss, nearest = info_nce(query, key, queue.detach(), temperature)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(query.grad.double(), q.grad, atol=1e-5, rtol=1e-4)
    assert key.grad is None
    cosines = F.normalize(query.detach(), dim=1) @ torch.cat([F.normalize(key.detach(), dim=1), queue.detach()]).T
    first = [row[i] > max(row[6:]) for i, row in enumerate(cosines.tolist())]
    assert nearest.item() == pytest.approx(sum(first) / 6)
    assert not nearest.requires_grad


def test_info_nce_of_keys_that_are_all_alike_is_the_chance_level():
    one = torch.ones(4, 3)
    loss, nearest = info_nce(one, one, F.normalize(torch.ones(7, 3), dim=1), 0.2)
    assert loss.item() == pytest.approx(math.log(8), abs=1e-5)
    assert nearest.item() == 0


def test_losses_without_negatives_are_in_float32_under_autocast():
    torch.manual_seed(0)
    a, b, queue = torch.randn(8, 4), torch.randn(8, 4), F.normalize(torch.randn(16, 4), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = cosine_regression(a.bfloat16(), b.bfloat16()), info_nce(a.bfloat16(), b.bfloat16(), queue, 0.1)[0]
    a, b = a.bfloat16().float(), b.bfloat16().float()
    for loss, expected in zip(losses, (cosine_regression(a, b), info_nce(a, b, queue, 0.1)[0]), strict=True):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected)
