"""Encoders and projection heads, against their plain layers and torchvision's."""

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from contrastive import Settings, UserError, load_images, resolve
from contrastive.encoders import Encoder, build_encoder, normalised_mlp, projection_head
from contrastive.settings import ENCODERS
from contrastive.training.resolution import check_images

MNIST = ((1, 28, 28), (0.1307,), (0.3081,))
COLOUR = ((0.5,) * 3, (0.25,) * 3)


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


@pytest.mark.parametrize(
    ("channels", "size", "stem", "stride", "kernel", "pooled"),
    [
        (1, 28, "auto", 1, 3, False),
        (3, 63, "auto", 1, 3, False),
        (3, 64, "auto", 2, 7, True),
        (1, 64, "auto", 2, 7, True),
        (3, 64, "small", 1, 3, False),
        (3, 32, "imagenet", 2, 7, True),
    ],
)
def test_resnet18_has_the_stem_that_fits_the_images(channels, size, stem, stride, kernel, pooled):
    shape = (channels, size, size)
    with torch.device("meta"):  # which has shapes and no numbers, so random ones need not be drawn
        encoder = built(shape, (0.5,) * channels, (0.25,) * channels, encoder="resnet18", stem=stem)
        assert encoder(torch.zeros(2, *shape)).shape == (2, encoder.out_dim) == (2, 512)
    first = encoder.body.conv1
    assert (first.in_channels, first.stride, first.kernel_size) == (channels, (stride,) * 2, (kernel,) * 2)
    assert isinstance(encoder.body.maxpool, nn.MaxPool2d) is pooled
    assert first.padding == (kernel // 2,) * 2
    assert encoder.first_filters().shape == (64, channels, kernel, kernel)
    # Of the 11,689,512 weights that torchvision tells of, the last layer's and the first one's are other ones.
    others = 11_689_512 - (512 * 1000 + 1000) - 3 * 64 * 49
    assert sum(p.numel() for p in encoder.parameters()) == others + channels * 64 * kernel**2


def test_resnet18_is_torchvisions_up_to_its_last_layer():
    torch.manual_seed(0)
    encoder, theirs = built((3, 48, 48), *COLOUR, encoder="resnet18", stem="imagenet"), resnet18(weights=None)
    theirs.fc = nn.Identity()
    theirs.load_state_dict({k.removeprefix("body."): v for k, v in encoder.state_dict().items() if "body." in k})
    x = torch.randn(2, 3, 48, 48).double()
    torch.testing.assert_close(encoder.double().body(x), theirs.double()(x))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_keeps_the_protocol(name):
    cls = ENCODERS[name]
    shape = (1, cls.SMALLEST, cls.SMALLEST + 3)
    assert cls.Parameters().decisive().keys() >= {"name"}
    encoder = built(shape, encoder=name)
    assert isinstance(encoder, Encoder)
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(encoder.prepare(images))
    assert (features.shape, features.dtype) == ((4, encoder.out_dim), torch.float32)
    assert encoder.first_filters().shape[1] == 1
    assert not encoder.first_filters().requires_grad
    assert encoder.prepare(images).is_contiguous(memory_format=torch.channels_last)
    assert {"mean", "std"} <= encoder.state_dict().keys()


def test_an_encoder_without_convolutions_has_no_filters_to_show():
    assert Encoder(nn.Flatten(), 784, (0.0,), (1.0,)).first_filters() is None


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
