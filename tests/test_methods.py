"""The losses of BYOL and MoCo v2 against a few lines in float64; and what methods are, of which `test_method_steps` has
the steps."""

import math

import pytest
import torch
import torch.nn.functional as F

from contrastive import Settings, UserError
from contrastive.losses import cosine_regression, info_nce
from contrastive.methods import Progress
from contrastive.methods.base import rising_momentum
from contrastive.settings import METHODS
from contrastive.training import loop

from .trainings import begun, take_steps

LR = 0.05
PLAIN = dict(base_channels=2, n_images=40, batch_size=8, epochs=2, optimiser="sgd", lr=LR, schedule="constant",
             warmup_epochs=0, weight_decay=0, precision="float32", projection_dim=6)  # fmt: skip


# --- Losses -------------------------------------------------------------------------------------------------------


def norm(x):
    return x / x.square().sum(1, keepdim=True).sqrt()


def byol_loss(p, t):
    return (norm(p) - norm(t)).square().sum(1).mean()


def moco_loss(q, k, queue, temperature):
    """Equation 1 of 1911.05722, query by query."""
    total = 0.0
    for one, own in zip(norm(q), norm(k), strict=True):
        logits = torch.stack([one @ key for key in [own, *queue]]) / temperature
        total = total - torch.log(logits.exp()[0] / logits.exp().sum())
    return total / len(q)


@pytest.mark.parametrize("autocast", [False, True])
def test_info_nce_and_its_gradient_equal_a_loop(autocast):
    torch.manual_seed(0)
    query = torch.randn(5, 4, requires_grad=True)
    key = (query.detach() + torch.randn(5, 4)).requires_grad_()
    queue = F.normalize(torch.randn(7, 4), dim=1)
    with torch.autocast("cpu", torch.bfloat16, autocast):
        loss, nearest = info_nce(query, key, queue, 0.1)
    assert loss.dtype == torch.float32
    theirs = query.detach().double().requires_grad_()
    expected = moco_loss(theirs, key.detach().double(), queue.double(), 0.1)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(query.grad.double(), theirs.grad, atol=1e-5, rtol=1e-4)
    assert key.grad is None
    similar = norm(theirs) @ torch.cat([norm(key.double()), queue.double()]).T
    own = similar[:, :5].diagonal()
    assert nearest.item() == pytest.approx((own > similar[:, 5:].amax(1)).double().mean().item())
    assert 0 < nearest < 1
    assert not nearest.requires_grad


@pytest.mark.parametrize("size", [1, 64])
def test_info_nce_of_keys_that_are_all_alike_is_the_logarithm_of_their_number(size):
    same = F.normalize(torch.ones(1, 8), dim=1)
    loss, nearest = info_nce(3 * same.expand(4, 8), same.expand(4, 8), same.expand(size, 8), 0.2)
    assert loss.item() == pytest.approx(math.log(size + 1), abs=1e-6)
    assert nearest.item() == 0


@pytest.mark.parametrize("autocast", [False, True])
def test_cosine_regression_is_a_squared_distance_of_directions(autocast):
    torch.manual_seed(0)
    prediction, target = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    theirs = prediction.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, autocast):
        loss = cosine_regression(prediction, target)
    expected = byol_loss(theirs, target.detach().double())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(prediction.grad.double(), theirs.grad, atol=1e-6, rtol=1e-4)
    assert target.grad is None
    x, aside = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert [cosine_regression(x, y).item() for y in (5 * x, aside, -x)] == pytest.approx([0, 2, 4])


def test_the_nearest_positives_are_counted():
    method, views = begun(**PLAIN).method.eval(), torch.randn(6, 1, 28, 28)
    output = method(loop.Batch([views, views]), Progress(0, 10))
    assert output.log["top1"].item() == 1.0
    assert output.loss < math.log(11)


# --- Methods ------------------------------------------------------------------------------------------------------


def test_the_queue_waits_for_the_step_and_is_kept_in_checkpoints():
    method = begun(method="mocov2", queue_size=32, **PLAIN).method
    before, views = method.queue.clone(), [torch.randn(8, 1, 28, 28) for _ in range(2)]
    first = method(loop.Batch(views), Progress(0, 10))
    assert torch.equal(method.queue, before)
    assert not method.keys.requires_grad
    key_weights = method.key_head[0].weight.clone()
    with torch.no_grad():
        method.head[0].weight.add_(1)
    assert torch.equal(method.key_head[0].weight, key_weights)
    method.after_step(Progress(0, 10))
    torch.testing.assert_close(method.key_head[0].weight, key_weights + 1 - method.own.momentum)
    assert torch.equal(method.queue[8:], before[8:])
    assert torch.equal(method.queue[:8], method.keys)
    assert first.log["top1"].requires_grad is False
    kept = method.state_dict()
    assert torch.equal(kept["queue"], method.queue)
    assert kept["place"] == 8
    assert {name.partition(".")[0] for name in kept} == {"encoder", "head", "key_encoder", "key_head", "queue", "place"}


@pytest.mark.parametrize(
    ("method", "slow"),
    [("byol", "target_encoder"), ("mocov2", "key_encoder"), ("mocov3", "key_encoder"), ("dino", "teacher_encoder")],
)
def test_the_slow_network_has_batch_statistics_of_its_own(method, slow):
    training = begun(method=method, local_views=0, **PLAIN)
    take_steps(training, 2)
    statistics = [getattr(training.method, name).body[2] for name in ("encoder", slow)]
    assert [int(layer.num_batches_tracked) for layer in statistics] == [2, 2]
    assert not torch.equal(*(layer.running_mean for layer in statistics))


def test_byols_momentum_rises_to_one_by_half_a_cosine():
    momenta = [rising_momentum(0.9, Progress(k, 8)) for k in range(9)]
    assert momenta == pytest.approx([1 - 0.1 * (math.cos(math.pi * k / 8) + 1) / 2 for k in range(9)])
    assert (momenta[0], momenta[4], momenta[8]) == pytest.approx((0.9, 0.95, 1.0))


@pytest.mark.parametrize("head", ["mlp", "linear", "none"])
@pytest.mark.parametrize("method", ["simclr", "mocov2", "supcon"])
def test_heads_can_be_chosen(method, head):
    training = begun(method=method, head=head, **PLAIN)
    losses, _ = take_steps(training, 2)
    assert all(map(math.isfinite, losses))
    features = torch.randn(3, training.method.encoder.out_dim)
    made = training.method.eval().representations(features)
    assert made["z"].shape == (3, training.method.encoder.out_dim if head == "none" else 6)
    assert made["h"] is features


def test_every_method_tells_what_it_is():
    for name in METHODS:
        cls = METHODS[name]
        assert cls.TITLE
        assert len(cls.TEXT) > 200
        training = begun(method=name, **{k: v for k, v in PLAIN.items() if k != "projection_dim"})
        output = training.method(loop.Batch(training.make_views(training.data[:8], torch.Generator()),
                                            training.labels if training.labels is None else training.labels[:8]),
                                 Progress(0, 10))  # fmt: skip
        assert list(output.log) == list(cls.LOG)
        assert (output.loss.shape, output.loss.dtype) == ((), torch.float32)
        assert not any(value.requires_grad for value in output.log.values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(method="byol", temperature=0.2), "belongs to method simclr, .*mocov2.* or swav, and byol was chosen"),
        (dict(method="simclr", momentum=0.9), "belongs to method byol, dino, mocov2 or mocov3, and simclr was chosen"),
        (dict(encoder="resnet18", base_channels=4), "belongs to encoder cnn.*, and resnet18 was chosen"),
        (dict(method="mocov4"), "Did you mean 'mocov3'"),
        (dict(method="mocov2", head="mpl"), "Did you mean 'mlp'"),
    ],
)
def test_parameters_of_what_was_not_chosen_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Settings(**wrong)
