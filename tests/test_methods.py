"""BYOL, MoCo v2 and their losses against a few lines in float64, over steps of the real loop."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from contrastive import Settings, UserError
from contrastive.losses import cosine_regression, info_nce
from contrastive.methods import Progress
from contrastive.methods.base import rising_momentum
from contrastive.settings import METHODS
from contrastive.training import begin_epoch, loop

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


# --- Methods, step by step ----------------------------------------------------------------------------------------


class Reference:
    """Networks of a method in float64, trained by SGD with a momentum of 0.9 that is written out."""

    def __init__(self, *networks):
        self.networks = [copy.deepcopy(network).double() for network in networks]
        self.targets = [copy.deepcopy(network) for network in self.networks]
        self.velocity = [torch.zeros_like(p) for p in self.parameters()]

    def parameters(self):
        return [p for network in self.networks for p in network.parameters()]

    def forward(self, networks, x):
        for network in networks:
            x = network(x)
        return x

    def step(self, loss):
        """One step down. Returns the gradients."""
        gradients = torch.autograd.grad(loss, self.parameters())
        with torch.no_grad():
            for p, g, v in zip(self.parameters(), gradients, self.velocity, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(LR * v)
        return gradients

    def follow(self, m, n):
        """The first n targets go towards their networks."""
        with torch.no_grad():
            for network, target in zip(self.networks[:n], self.targets[:n], strict=True):
                for online, slow in zip(network.parameters(), target.parameters(), strict=True):
                    slow.copy_(m * slow + (1 - m) * online)


def recorded(training):
    """The same training, and the list to which the views of its steps will be added."""
    seen = []

    def make_views(images, draws):
        seen.append(training.make_views(images, draws))
        return seen[-1]

    return dataclasses.replace(training, make_views=make_views), seen


def assert_alike(ours, theirs, what):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-4, rtol=1e-3, msg=lambda m: f"{what}: {m}")


def trained_parameters(training):
    return {p for group in training.optimiser.param_groups for p in group["params"]}


def test_byol_equals_a_few_lines_of_float64_in_loss_gradient_and_target():
    training, views = recorded(begun(method="byol", momentum=0.8, hidden_dim=10, **PLAIN))
    method, steps = training.method, training.steps
    encoder = method.encoder.body
    reference = Reference(encoder, method.head, method.predictor)
    target = [*method.target_encoder.parameters(), *method.target_head.parameters()]
    assert not trained_parameters(training) & set(target)
    assert sum(map(len, (reference.parameters(), target))) == len(list(method.parameters()))
    state, before = begin_epoch(training, 0), 0.0
    assert steps == 10
    for k in range(training.steps_of_epoch):
        loop.take_step(training, state)
        v = torch.cat(views[k]).double()
        p = reference.forward(reference.networks, v)
        with torch.no_grad():
            t = reference.forward(reference.targets[:2], v)
        loss = byol_loss(p[:8], t[8:]) + byol_loss(p[8:], t[:8])
        assert state.sums[0].item() - before == pytest.approx(loss.item(), abs=1e-4)
        before = state.sums[0].item()
        gradients = reference.step(loss)
        reference.follow(1 - (1 - 0.8) * (math.cos(math.pi * k / steps) + 1) / 2, 2)
        online = [p for network in (encoder, method.head, method.predictor) for p in network.parameters()]
        assert_alike([p.grad for p in online], gradients, "gradient")
        assert_alike(online, reference.parameters(), "weights")
        for ours, theirs in zip((method.target_encoder.body, method.target_head), reference.targets, strict=False):
            assert_alike(ours.state_dict().values(), map(torch.Tensor.double, theirs.state_dict().values()), "target")
        assert all(p.grad is None for p in target)
    assert (target[0] - encoder[0].weight).abs().max() > 1e-3  # it follows, and is not the same


@pytest.mark.parametrize("size", [21, 5])  # of the queue: the third batch goes round its end; and less than a batch
def test_moco_equals_a_few_lines_of_float64_in_loss_gradient_keys_and_queue(size):
    training, views = recorded(begun(method="mocov2", momentum=0.8, temperature=0.3, queue_size=size, **PLAIN))
    method, encoder = training.method, training.method.encoder.body
    reference = Reference(encoder, method.head)
    slow = [*method.key_encoder.parameters(), *method.key_head.parameters()]
    assert not trained_parameters(training) & set(slow)
    assert sum(map(len, (reference.parameters(), slow))) == len(list(method.parameters()))
    queue = list(method.queue.double().clone())  # from the oldest key to the newest
    assert torch.stack(queue).norm(dim=1).sub(1).abs().max() < 1e-6
    state, before = begin_epoch(training, 0), 0.0
    for k in range(training.steps_of_epoch):
        loop.take_step(training, state)
        first, second = (view.double() for view in views[k])
        query = reference.forward(reference.networks, first)
        with torch.no_grad():
            keys = norm(reference.forward(reference.targets, second))
        loss = moco_loss(query, keys, queue, 0.3)
        assert state.sums[0].item() - before == pytest.approx(loss.item(), abs=1e-4)
        before = state.sums[0].item()
        gradients = reference.step(loss)
        reference.follow(0.8, 2)
        queue = [*queue, *keys][-size:]
        online = [*encoder.parameters(), *method.head.parameters()]
        assert_alike([p.grad for p in online], gradients, "gradient")
        assert_alike(online, reference.parameters(), "weights")
        for ours, theirs in zip((method.key_encoder.body, method.key_head), reference.targets, strict=True):
            assert_alike(ours.state_dict().values(), map(torch.Tensor.double, theirs.state_dict().values()), "keys")
        assert_alike([method.queue.roll(-int(method.place), 0)], [torch.stack(queue)], "queue")
        assert method.place == min(8, size) * (k + 1) % size
        assert all(p.grad is None for p in slow)


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
    torch.testing.assert_close(method.key_head[0].weight, key_weights + 1 - method.momentum)
    assert torch.equal(method.queue[8:], before[8:])
    assert torch.equal(method.queue[:8], method.keys)
    assert first.log["top1"].requires_grad is False
    kept = method.state_dict()
    assert torch.equal(kept["queue"], method.queue)
    assert kept["place"] == 8
    assert {name.partition(".")[0] for name in kept} == {"encoder", "head", "key_encoder", "key_head", "queue", "place"}


@pytest.mark.parametrize(("method", "slow"), [("byol", "target_encoder"), ("mocov2", "key_encoder")])
def test_the_slow_network_has_batch_statistics_of_its_own(method, slow):
    training = begun(method=method, **PLAIN)
    take_steps(training, 2)
    statistics = [getattr(training.method, name).body[2] for name in ("encoder", slow)]
    assert [int(layer.num_batches_tracked) for layer in statistics] == [2, 2]
    assert not torch.equal(*(layer.running_mean for layer in statistics))


def test_byols_momentum_rises_to_one_by_half_a_cosine():
    momenta = [rising_momentum(0.9, Progress(k, 8)) for k in range(9)]
    assert momenta == pytest.approx([1 - 0.1 * (math.cos(math.pi * k / 8) + 1) / 2 for k in range(9)])
    assert (momenta[0], momenta[4], momenta[8]) == pytest.approx((0.9, 0.95, 1.0))


def test_levels_of_the_loss_are_those_of_the_loss_functions():
    method = begun(method="mocov2", queue_size=7, temperature=0.25, **PLAIN).method
    chance, lowest = method.loss_range(8)
    assert chance == pytest.approx(math.log(8))
    apart = torch.eye(8)  # the own key coincides, all others are orthogonal
    assert lowest == pytest.approx(info_nce(apart[:1], apart[:1], apart[1:], 0.25)[0].item(), rel=1e-5)
    assert begun(method="byol", **PLAIN).method.loss_range(8) is None


@pytest.mark.parametrize("head", ["mlp", "linear", "none"])
@pytest.mark.parametrize("method", ["simclr", "mocov2"])
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
        (dict(method="byol", temperature=0.2), "belongs to method simclr or mocov2, and byol was chosen"),
        (dict(method="simclr", momentum=0.9), "belongs to method byol or mocov2, and simclr was chosen"),
        (dict(encoder="resnet18", base_channels=4), "belongs to encoder cnn, and resnet18 was chosen"),
        (dict(method="mocov3"), "Did you mean 'mocov2'"),
        (dict(method="mocov2", head="mpl"), "Did you mean 'mlp'"),
    ],
)
def test_parameters_of_what_was_not_chosen_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Settings(**wrong)
