"""Encoders and projection heads, against their plain layers."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrastive import Settings, UserError, load_images, resolve
from contrastive.encoders import Encoder, build_encoder, check_view, normalised_mlp, projection_head
from contrastive.encoders.squares import SquareEncoder
from contrastive.settings import ENCODERS
from contrastive.training.requests import check_images

MNIST = ((1, 28, 28), (0.1307,), (0.3081,))
COLOUR = ((0.5,) * 3, (0.25,) * 3)
FAMILIES = {"torchvision:NAME": "torchvision:mobilenet_v3_small", "timm:NAME": "timm:test_resnet"}  # one of each


def built(shape=MNIST[0], mean=(0.0,), std=(1.0,), **parameters):
    """A new encoder in train mode."""
    return build_encoder(Settings(**parameters).encoder, shape, mean, std).train()


def test_shapes_and_parameter_counts_of_the_cnn():
    encoder = built(*MNIST)
    assert sum(p.numel() for p in encoder.parameters()) == 92_896
    assert encoder.out_dim == 1152
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    prepared = encoder.prepare(images)
    torch.testing.assert_close(prepared, (images / 255 - 0.1307) / 0.3081)
    assert encoder(prepared).shape == (5, 1152)
    colour = built((3, 32, 32), *COLOUR)
    assert colour(torch.zeros(2, 3, 32, 32)).shape == (2, colour.out_dim) == (2, 2048)


@pytest.mark.parametrize("size", [28, 29, 32])
def test_the_cnn_equals_its_plain_layers(size):
    torch.manual_seed(0)
    encoder = built((1, size, size), base_channels=4).double()
    plain, channels = [], 1
    for out in (4, 8, 16):
        conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        plain += [conv, nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    reference = nn.Sequential(*plain).double()
    reference.load_state_dict({k.removeprefix("body."): v for k, v in encoder.state_dict().items() if "body." in k})
    x, weights = torch.randn(6, 1, size, size).double(), torch.randn(6, encoder.out_dim)
    ours, theirs = encoder.body(x), reference(x).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(ours, theirs)
    for features, module in ((ours, encoder), (theirs, reference)):
        (features * weights).sum().backward()
        assert all(p.grad is not None for p in module.parameters())
    for p, q in zip(encoder.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_the_last_map_can_be_averaged():
    torch.manual_seed(0)
    flat, averaged = (built(base_channels=4, pool=pool).eval() for pool in ("none", "avg"))
    averaged.load_state_dict(flat.state_dict())
    x = torch.randn(5, 1, 28, 28)
    assert (flat.out_dim, averaged.out_dim) == (9 * 16, 16)
    torch.testing.assert_close(averaged(x), flat(x).view(5, 9, 16).mean(1))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_keeps_the_protocol(name):
    name = FAMILIES.get(name, name)
    cls = ENCODERS[name]
    shape = (1, cls.SMALLEST, cls.SMALLEST + 3)
    assert cls.Parameters().decisive().keys() >= {"name"}
    encoder = built(shape, encoder=name)
    assert isinstance(encoder, Encoder)
    cls.check(Settings(encoder=name).encoder, shape)
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(encoder.prepare(images))
    assert (features.shape, features.dtype) == ((4, encoder.out_dim), torch.float32)
    assert encoder.first_filters().shape[1] == (3 if isinstance(encoder, SquareEncoder) else 1)
    assert not encoder.first_filters().requires_grad
    assert encoder.prepare(images).is_contiguous(memory_format=torch.channels_last)
    assert {"mean", "std"} <= encoder.state_dict().keys()


def test_an_encoder_without_convolutions_has_no_filters_to_show():
    assert Encoder(nn.Flatten(), 784, (0.0,), (1.0,)).first_filters() is None


def refused(name, shape, view=None):
    """What an encoder says of images, or of views of them, that it does not take."""
    with pytest.raises(UserError) as caught:
        ENCODERS[name].check(Settings(encoder=name).encoder, shape, view)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_says_which_images_and_views_it_does_not_take():
    larger = " Larger ones are made of them by image_size=16."
    assert refused("cnn", (1, 28, 12)) == f"the images have 28x12 pixels: encoder cnn needs at least 16x16.{larger}"
    assert refused("cnn", (1, 15, 28)) == f"the images have 15x28 pixels: encoder cnn needs at least 16x16.{larger}"
    assert refused("cnn", (1, 28, 28), (1, 15, 15)) == "encoder cnn needs at least 16 pixels."
    assert refused("resnet9", (3, 7, 28)).startswith("the images have 7x28 pixels: encoder resnet9 needs at least 8x8.")
    ENCODERS["cnn"].check(Settings().encoder, (1, 16, 16), (1, 16, 17))


def test_views_are_as_wide_as_their_height_makes_them():
    cnn = Settings(pool="avg").encoder
    check_view(cnn, (1, 30, 45), 16, "a view")
    check_view(cnn, (1, 32, 16), 32, "a view")
    with pytest.raises(UserError, match=r"^a view=30: encoder cnn needs at least 16 pixels\.$"):
        check_view(cnn, (1, 32, 16), 30, "a view")  # of 30x15 pixels


@pytest.mark.parametrize("size", [(8, 11), (28, 28), (29, 45)])
def test_resnet9_equals_its_plain_layers(size):
    torch.manual_seed(0)
    encoder, x = built((2, *size), (0.0,) * 2, (1.0,) * 2, encoder="resnet9", base_channels=4), torch.randn(5, 2, *size)
    encoder, x = encoder.double(), x.double()
    layers = [
        (layer.weight, norm)
        for layer, norm in itertools.pairwise(m for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))
        if isinstance(layer, nn.Conv2d)
    ]
    assert [weight.shape[0] for weight, _ in layers] == [4, 8, 8, 8, 16, 16, 16]

    def layer(i, x, pooled=False):
        weight, norm = layers[i]
        x = F.conv2d(x, weight, padding=1)
        x = F.max_pool2d(x, 2) if pooled else x
        return F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True))

    h = layer(1, layer(0, x, pooled=True), pooled=True)
    h = h + layer(3, layer(2, h))
    h = layer(4, h, pooled=True)
    h = h + layer(6, layer(5, h))
    torch.testing.assert_close(encoder.body(x), h.mean((2, 3)))
    assert encoder.out_dim == 16


def test_resnet9_has_as_many_weights_as_it_says():
    with torch.device("meta"):
        encoder = built((3, 32, 32), *COLOUR, encoder="resnet9")
    widths = [3, 64, 128, 128, 128, 256, 256, 256]
    convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in encoder.parameters()) == convolutions + 2 * sum(widths[1:]) == 1_847_360
    assert encoder.out_dim == 256


def test_images_and_views_smaller_than_the_encoders_smallest_are_refused():
    images, settings = load_images("digits"), Settings(preset="smoke")
    small = dataclasses.replace(images, train=images.train[..., :12])
    with pytest.raises(UserError, match=r"28x12 pixels: encoder cnn needs at least 16x16"):
        check_images(settings, small)
    with pytest.raises(UserError, match=r"view_size=12: encoder cnn needs at least 16"):
        resolve(settings.replace(view_size=12), images)
    check_images(settings.replace(encoder="resnet18"), small)
    assert resolve(settings.replace(encoder="resnet18", view_size=8), images)[0].views.view_size == 8


@pytest.mark.parametrize(
    ("kind", "count"), [("none", 0), ("linear", 1152 * 128 + 128), ("mlp", 1152 * 256 + 256 + 256 * 128 + 128)]
)
def test_projection_heads(kind, count):
    head = projection_head(kind, 1152, 128)
    assert sum(p.numel() for p in head.parameters()) == count
    assert head(torch.zeros(2, 1152)).shape == (2, 1152 if kind == "none" else 128)


def test_byols_heads_normalise_their_hidden_layer():
    torch.manual_seed(0)
    head, x = normalised_mlp(6, 10, 4), torch.randn(8, 6)
    assert sum(p.numel() for p in head.parameters()) == 6 * 10 + 2 * 10 + 10 * 4 + 4
    first, _, _, last = head
    hidden = x @ first.weight.T
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), normal.relu() @ last.weight.T + last.bias)
