"""What methods find out by rules, refuse, freeze, and say of their loss."""

import json

import pytest
import torch
from torch import nn

from contrastive import Settings, UserError, resolve
from contrastive.__main__ import main
from contrastive.methods import Batch, Progress
from contrastive.settings import METHODS

from .trainings import begun, take_steps

FEW = dict(base_channels=2, n_images=64, batch_size=16, epochs=2)
FITTED = {"byol": {"momentum"}, "mocov3": {"momentum"}, "mocov2": {"queue_size"},
          "swav": {"n_prototypes"}, "dino": {"momentum", "n_prototypes"}}  # fmt: skip


def resolved(method, **parameters):
    unset = dict.fromkeys(FITTED.get(method, ()))
    return resolve(Settings(preset="smoke", method=method, **FEW | unset | parameters))[0]


# --- By rules -----------------------------------------------------------------------------------------------------


def test_what_nobody_asked_for_is_found_by_a_rule():
    for name in METHODS:
        own = Settings(method=name).method
        unset = {field for field, value in own.model_dump().items() if value is None}
        assert unset == FITTED.get(name, set()) == METHODS[name].fitted(resolved(name)).keys()
        assert not [field for field, value in resolved(name).method.model_dump().items() if value is None]


@pytest.mark.parametrize("name", FITTED)
def test_what_was_found_names_the_run_and_what_was_asked_for_stays(name):
    found, asked = resolved(name), dict(momentum=0.5, queue_size=48, n_prototypes=7)
    for field in FITTED[name]:
        value = getattr(found.method, field)
        assert json.loads(found.identity)["method"][field] == value
        other = resolved(name, **{field: asked[field]})
        assert getattr(other.method, field) == asked[field] != value
        assert other.run_name != found.run_name
        assert resolved(name, **{field: value}).run_name == found.run_name


@pytest.mark.parametrize("name", ["byol", "mocov3", "dino"])
def test_a_target_averages_over_a_part_of_an_epoch(name):
    """So its momentum is higher, the more steps an epoch has."""
    usual = Settings(method=name)
    of = [
        METHODS[name].fitted(usual.replace(n_images=n, batch_size=size))["momentum"]
        for n, size in ((256, 256), (2048, 256), (16384, 256), (16384, 64))
    ]
    assert of == sorted(of)
    assert 0.5 < of[0] < of[-1] < 1
    steps = 16384 // 64
    assert 0.1 < 1 / (1 - of[-1]) / steps < 2


def test_a_queue_holds_whole_batches_and_fewer_keys_than_there_are_images():
    for n_images in (64, 100, 1000):
        for size in (2, 16, 33, 64):
            queue = resolved("mocov2", n_images=n_images, batch_size=size).method.queue_size
            assert queue % size == 0
            assert size <= queue <= max(n_images, size)


def test_a_queue_that_is_no_multiple_of_the_batch_is_refused_in_a_line(capsys):
    for asked, fitting in ((41, 48), (39, 32), (3, 16)):
        with pytest.raises(UserError, match=rf"queue_size={asked}: a batch has 16 keys.*Ask for {fitting}, or"):
            resolved("mocov2", queue_size=asked)
        assert resolved("mocov2", queue_size=fitting).method.queue_size == fitting
    words = "pretrain --preset smoke -p method=mocov2 -p n_images=64 -p batch_size=16 -p queue_size=40"
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "queue_size=40" in said


def test_what_was_found_for_another_batch_or_method_is_found_anew():
    found, _ = resolve(Settings(preset="smoke", method="mocov2", **FEW))
    for size in (8, 32):
        again, _ = resolve(found.replace(batch_size=size))
        assert again.method.queue_size % size == 0
    small, _ = resolve(Settings(preset="smoke", method="dino", **FEW))
    assert small.views.local_views == 6
    for method in ("supervised", "simclr"):
        assert resolve(small.replace(method=method))[0].views.local_views is None
    assert resolve(found.replace(queue_size=48, batch_size=8))[0].method.queue_size == 48  # this was asked for


# --- Heads, as the papers have them -------------------------------------------------------------------------------

MLP = "Linear, BatchNorm1d, ReLU, "
PREDICTOR = MLP + "Linear"
PROJECTORS = {  # a BatchNorm in brackets has no parameters
    "byol": (PREDICTOR, PREDICTOR),  # 2006.07733, section 3.3
    "mocov3": (2 * MLP + "Linear, (BatchNorm1d)", MLP + "Linear, (BatchNorm1d)"),  # 2104.02057, section 4
    "simsiam": (2 * MLP + "Linear, (BatchNorm1d)", PREDICTOR),  # 2011.10566, section 3
    "barlow_twins": (2 * MLP + "Linear", None),  # 2103.03230, section 2.2
    "vicreg": (2 * MLP + "Linear", None),  # 2105.04906, section 4.2
    "swav": (PREDICTOR, None),  # 2006.09882, appendix A
    "dino": ("Linear, GELU, Linear, GELU, Linear", None),  # 2104.14294, appendix C
    "supcon": ("Linear, ReLU, Linear", None),  # 2004.11362, section 3.1
}


def layers(network):
    names = [(type(layer).__name__, any(True for _ in layer.parameters())) for layer in network]
    return ", ".join(f"({name})" if name == "BatchNorm1d" and not has else name for name, has in names)


@pytest.mark.parametrize("name", PROJECTORS)
def test_projectors_and_predictors_have_the_layers_of_their_papers(name):
    method, (projector, predictor) = begun(method=name, **FEW).method, PROJECTORS[name]
    assert layers(method.head) == projector
    assert (layers(method.predictor) if hasattr(method, "predictor") else None) == predictor
    linear = [layer for layer in method.head if isinstance(layer, nn.Linear)]
    assert linear[0].in_features == method.encoder.out_dim
    assert linear[-1].out_features == method.own.projection_dim
    if name == "simsiam":  # a bottleneck
        assert [method.predictor[i].out_features for i in (0, 3)] == [128, 512]


# --- A Vision Transformer's patches -------------------------------------------------------------------------------

VIT = dict(encoder="vit_tiny", depth=1, n_images=16, batch_size=4, precision="float32", weight_decay=0.1, epochs=2)


@pytest.mark.parametrize("frozen", [True, False])
def test_mocov3_keeps_the_projection_of_patches_as_it_was_drawn(frozen):
    training = begun(method="mocov3", freeze_patches=frozen, optimiser="adamw", hidden_dim=8, projection_dim=4, **VIT)
    method = training.method
    assert method.encoder.patches is method.encoder.body.patches
    before = {name: p.clone() for name, p in method.encoder.named_parameters()}
    take_steps(training, 3)
    still = {name for name, p in method.encoder.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in still if "patches" in name} == (
        {"body.patches.weight", "body.patches.bias"} if frozen else set()
    )
    assert not any(name.endswith("weight") for name in still if "patches" not in name)
    trained = {p for group in training.optimiser.param_groups for p in group["params"]}
    assert (method.encoder.patches.weight in trained) is not frozen
    slow = method.key_encoder.patches.weight
    assert torch.equal(slow, before["body.patches.weight"]) is frozen


def test_other_methods_and_encoders_freeze_nothing():
    for parameters in (dict(method="simclr", **VIT), dict(method="mocov3", hidden_dim=8, **FEW)):
        encoder = begun(**parameters).method.encoder
        assert all(p.requires_grad for p in encoder.parameters())


# --- Levels of the loss -------------------------------------------------------------------------------------------


class Number(nn.Module):
    """An encoder that tells an image's number, which all its pixels have."""

    def forward(self, x):
        return x.flatten(1)[:, 0]


class Rows(nn.Module):
    """A head that gives each image its row."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, x):
        return self.rows[x.long()]


# Rows of a Hadamard matrix without the first column: dimensions that have nothing in common
APART = torch.tensor([[(-1.0) ** bin(i & j).count("1") for j in range(1, 8)] for i in range(8)])
LEVELS = {
    "simclr": dict(temperature=0.3),
    "mocov2": dict(temperature=0.3, queue_size=8),
    "mocov3": dict(temperature=0.3),
    "barlow_twins": {},
    "vicreg": {},
    "swav": dict(n_prototypes=8),
    "dino": dict(n_prototypes=8),
    "supcon": dict(temperature=0.3),
}


def loss_of(name, rows, queue, local_views=0):
    """A method's levels for batches of eight images, and its loss where these have the given projections."""
    width = dict(projection_dim=rows.shape[1])
    method = begun(method=name, local_views=local_views, **FEW | dict(batch_size=8), **width, **LEVELS[name]).method
    for part in ("encoder", "key_encoder", "teacher_encoder"):
        setattr(method, part, Number())
    for part in ("head", "key_head", "teacher_head"):
        setattr(method, part, Rows(rows))
    method.predictor = nn.Identity()
    with torch.no_grad():
        for part in ("queue", "prototypes", "teacher_prototypes"):
            if hasattr(method, part):
                getattr(method, part).copy_(queue)
    views = [torch.arange(8.0).view(8, 1, 1, 1)] * (2 + local_views)
    loss = method(Batch(views, torch.arange(8) // 2), Progress(10, 10)).loss
    return method.loss_range(8), loss.item()


def test_every_method_with_levels_is_tried():
    names = {name for name in METHODS if begun(method=name, base_channels=2).method.loss_range(8) is not None}
    assert names == {*LEVELS, "supervised"}


@pytest.mark.parametrize("local_views", [0, 2])
@pytest.mark.parametrize("name", LEVELS)
def test_the_upper_level_is_the_loss_where_nothing_is_told_apart(name, local_views):
    alike = torch.ones(8, 8) / 8**0.5
    (chance, lowest), loss = loss_of(name, alike, alike, local_views)
    assert loss == pytest.approx(chance, rel=1e-5)
    assert lowest < chance


@pytest.mark.parametrize("local_views", [0, 2])
@pytest.mark.parametrize("name", [name for name in LEVELS if name != "supcon"])
def test_the_lower_level_is_the_loss_where_all_is_told_apart(name, local_views):
    rows = torch.eye(9)[:8]
    queue = torch.eye(9)[8:].expand(8, 9)
    if name in ("swav", "dino"):
        queue = rows
    elif name in ("barlow_twins", "vicreg"):
        rows = queue = APART
    (chance, lowest), loss = loss_of(name, rows, queue, local_views)
    assert loss == pytest.approx(lowest, rel=1e-5, abs=1e-3)
    assert lowest < chance / 2


@pytest.mark.parametrize("local_views", [0, 2])
def test_the_lower_level_of_supcon_is_of_classes_of_one_size(local_views):
    training = begun(method="supcon", base_channels=2, temperature=0.3, projection_dim=8, local_views=local_views)
    method, views = training.method, [torch.arange(8.0).view(8, 1, 1, 1)] * (2 + local_views)
    method.encoder, method.head, method.n_classes = Number(), Rows(torch.eye(8).repeat_interleave(2, 0)[:8]), 4
    output = method(Batch(views, torch.arange(8) // 2), Progress(0, 10))
    assert output.loss.item() == pytest.approx(method.loss_range(8)[1], rel=1e-5)
    assert output.log["top1"] == 1
