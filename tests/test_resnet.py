"""ResNet-18, -34 and -50, against torchvision's."""

import pytest
import torch
from torch import nn
from torchvision import models

from contrastive import Settings
from contrastive.encoders import build_encoder
from contrastive.encoders.resnet import ResNetSettings

# Features, and parameters as torchvision tells of them, with a last layer for 1,000 classes
NETWORKS = {"resnet18": (512, 11_689_512), "resnet34": (512, 21_797_672), "resnet50": (2048, 25_557_032)}
STEMS = {"small": (1, 3, False), "pooled": (1, 3, True), "imagenet": (2, 7, True)}  # stride, kernel, whether it pools


def built(shape, **parameters):
    """A new encoder in train mode."""
    channels = shape[0]
    return build_encoder(Settings(**parameters).encoder, shape, (0.5,) * channels, (0.25,) * channels).train()


@pytest.mark.parametrize(
    ("shape", "stem", "expected"),
    [
        ((1, 28, 28), "auto", "small"),
        ((3, 63, 63), "auto", "small"),
        ((3, 64, 64), "auto", "pooled"),
        ((1, 112, 112), "auto", "pooled"),
        ((3, 113, 113), "auto", "imagenet"),
        ((1, 113, 130), "auto", "imagenet"),
        ((1, 63, 200), "auto", "small"),
        ((2, 200, 112), "auto", "pooled"),
        ((3, 128, 128), "small", "small"),
        ((3, 128, 128), "pooled", "pooled"),
        ((3, 32, 32), "imagenet", "imagenet"),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stem_fits_the_images(name, shape, stem, expected):
    features, usual = NETWORKS[name]
    stride, kernel, pooled = STEMS[expected]
    with torch.device("meta"):  # which has shapes and no numbers, so random ones need not be drawn
        encoder = built(shape, encoder=name, stem=stem)
        assert encoder(torch.zeros(2, *shape)).shape == (2, encoder.out_dim) == (2, features)
    first, channels = encoder.body.conv1, shape[0]
    assert (first.in_channels, first.stride, first.kernel_size) == (channels, (stride,) * 2, (kernel,) * 2)
    assert isinstance(encoder.body.maxpool, nn.MaxPool2d) is pooled
    assert first.padding == (kernel // 2,) * 2
    assert encoder.first_filters().shape == (64, channels, kernel, kernel)
    # Of the weights that torchvision tells of, the last layer's and the first one's are other ones.
    others = usual - (features * 1000 + 1000) - 3 * 64 * 49
    assert sum(p.numel() for p in encoder.parameters()) == others + channels * 64 * kernel**2


def test_stems_leave_maps_of_a_few_places():
    seen = []
    for size in (32, 63, 64, 112, 113, 224):
        with torch.device("meta"):
            encoder = built((1, size, size), encoder="resnet18")
            encoder.body.avgpool.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
            encoder(torch.zeros(2, 1, size, size))
    assert seen == [4, 8, 4, 7, 4, 7]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_torchvisions_up_to_their_last_layer(name):
    torch.manual_seed(0)
    encoder, theirs = built((3, 48, 48), encoder=name, stem="imagenet"), getattr(models, name)(weights=None)
    theirs.fc = nn.Identity()
    theirs.load_state_dict({k.removeprefix("body."): v for k, v in encoder.state_dict().items() if "body." in k})
    x = torch.randn(2, 3, 48, 48).double()
    torch.testing.assert_close(encoder.double().body(x), theirs.double()(x))


def test_the_pooled_stem_is_the_small_one_before_torchvisions_pooling():
    torch.manual_seed(0)
    small, pooled = (built((1, 32, 32), encoder="resnet18", stem=stem).eval() for stem in ("small", "pooled"))
    pooled.load_state_dict(small.state_dict())
    x, body = torch.randn(2, 1, 32, 32), small.body
    h = nn.functional.max_pool2d(body.relu(body.bn1(body.conv1(x))), 3, stride=2, padding=1)
    expected = body.avgpool(body.layer4(body.layer3(body.layer2(body.layer1(h))))).flatten(1)
    torch.testing.assert_close(pooled(x), expected)


def test_the_version_tells_new_stems_from_old_ones():
    assert ResNetSettings.VERSION == 2
    assert {type(Settings(encoder=name).encoder) for name in NETWORKS} == {ResNetSettings}
