"""Encoders of other libraries: against these libraries' own networks, and in a training from end to end."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from contrastive import Settings, UserError, load_encoder, pretrain, resolve
from contrastive.__main__ import main
from contrastive.data.preparation import Preparation
from contrastive.encoders import build_encoder, check_view, outside, zoos
from contrastive.encoders.general import general_encoder
from contrastive.settings import ENCODERS, plugins
from contrastive.storage.files import DamagedError
from contrastive.training import begin_epoch, train
from contrastive.training.checkpoint import load_state, pack, save_state, unpack
from contrastive.training.runs import ENCODER, save_encoder

from .trainings import begun, take_steps, timeless

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (3, 3, 30, 44), dtype=torch.uint8, generator=GENERATOR)
SMALL = dict(n_images=64, batch_size=16, epochs=2, warmup_epochs=0, lr=1e-3, precision="float32")
LITE0 = dict(encoder="efficientnet_lite0", **SMALL)


def built(name, shape=(3, 30, 44), **parameters):
    """A new encoder, as it is where a training starts."""
    mean, std = (0.4, 0.5, 0.6)[: shape[0]], (0.2, 0.3, 0.25)[: shape[0]]
    return build_encoder(Settings(encoder=name, **parameters).encoder, shape, mean, std)


def squares(images, size, mean, std):
    """uint8 images as normalised squares, by plain PyTorch."""
    x = (images.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    return F.interpolate(x, (size, size), mode="bicubic", antialias=size < 44)


def whole_network(name, size):
    """A library's own network, with a classifier for 1,000 classes; what makes logits of features; mean and std."""
    library, _, inner = name.partition(":")
    torch.manual_seed(1)
    if library == "torchvision":
        from torchvision import models

        network = getattr(models, inner)(weights=None)
        classify = network.fc
        normal = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    else:
        import timm

        network = timm.create_model(inner, pretrained=False)
        classify, normal = network.get_classifier(), (network.default_cfg["mean"], network.default_cfg["std"])
    return warmed(network, size), classify, normal


def warmed(network, size):
    """The network in eval mode, after BatchNorm saw some images; before, it gives all images the same features."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    network.train()(torch.randn(8, 3, size, size))
    return network.eval()


# --- Features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [("torchvision:resnet18", 44), ("timm:test_resnet", 36), ("timm:test_vit", 160)],
)  # fmt: skip
def test_features_are_those_of_the_librarys_network_with_the_same_weights(name, size, tmp_path):
    whole, classify, (mean, std) = whole_network(name, size)
    torch.save(whole.state_dict(), tmp_path / "net.pth")
    encoder = built(name, input_size=size)
    assert encoder.size == size
    encoder.adopt(Settings(encoder=name, input_size=size).encoder, tmp_path / "net.pth")
    encoder.eval()
    torch.testing.assert_close(encoder.mean, torch.tensor(mean))
    torch.testing.assert_close(encoder.std, torch.tensor(std))
    expected = whole(squares(IMAGES, size, mean, std))
    torch.testing.assert_close(classify(encoder(encoder.prepare(IMAGES))), expected, atol=1e-4, rtol=1e-4)
    assert expected.std(0).mean() > 0.01


@pytest.mark.parametrize("size", [44, 57])
def test_new_weights_are_random_and_images_keep_their_size_and_normalisation(size):
    from efficientnet_lite_pytorch import EfficientNet

    encoder = built("efficientnet_lite0", **({} if size == 44 else {"input_size": size}))
    assert not torch.equal(encoder.body._conv_stem.weight, general_encoder().body._conv_stem.weight)
    warmed(encoder, size)
    whole = EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    whole.load_state_dict(encoder.body.state_dict(), strict=False)
    x = squares(IMAGES, size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    expected = whole.extract_features(x).mean((2, 3))
    torch.testing.assert_close(encoder(encoder.prepare(IMAGES)), expected, atol=1e-5, rtol=1e-3)
    assert (encoder.size, encoder.out_dim) == (size, 1280)
    assert expected.std(0).mean() > 0.01


@pytest.mark.parametrize("size", [None, 75])
def test_efficientnet_that_is_continued_starts_with_its_general_features(size):
    more = {} if size is None else {"input_size": size}
    encoder = begun(initial_weights="imagenet", **more, **LITE0).method.encoder.eval()
    general = general_encoder(size=size)
    assert encoder.size == general.size == (size or 112)
    for images in (IMAGES, IMAGES[:, :1]):
        torch.testing.assert_close(encoder(encoder.prepare(images)), general(general.prepare(images)))


def test_grey_images_and_their_views_are_three_equal_channels():
    encoder = built("torchvision:resnet18", (1, 28, 28)).eval()
    grey = IMAGES[:, :1, :28, :28]
    assert encoder.prepare(grey).shape == (3, 3, 28, 28)
    expected = encoder(encoder.prepare(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(encoder(encoder.prepare(grey)), expected)
    torch.testing.assert_close(encoder((grey / 255 - 0.4) / 0.2), expected)
    with pytest.raises(UserError, match="2 channels"):
        encoder.prepare(IMAGES[:, :2])


# --- Views, trainings ---------------------------------------------------------------------------------------------


def test_views_of_any_size_become_squares_of_one():
    encoder = built("timm:test_vit", (3, 32, 32)).eval()
    small = torch.randn(2, 3, 14, 20)
    torch.testing.assert_close(encoder(small), encoder(F.interpolate(small, (32, 32), mode="bicubic")))
    check_view(Settings(encoder="timm:test_vit").encoder, (3, 32, 32), 14, "local_view_size")
    with pytest.raises(UserError, match=r"^local_view_size=7: encoder timm:test_vit needs at least 8 pixels\.$"):
        check_view(Settings(encoder="timm:test_vit").encoder, (3, 32, 32), 7, "local_view_size")
    training = begun(method="swav", local_views=2, n_prototypes=20, **SMALL, encoder="timm:test_resnet")
    assert [view.size for view in training.method.views()] == [None, 14]
    losses, _ = take_steps(training, 2)
    assert all(map(torch.isfinite, torch.tensor(losses)))


def test_all_layers_train_and_all_are_still_in_a_loaded_encoder(tmp_path):
    encoder = built("torchvision:mnasnet0_5")
    assert all(layer.training for layer in encoder.modules())
    training = begun(**LITE0)
    assert all(layer.training for layer in training.method.modules())
    before = {name: x.clone() for name, x in training.method.encoder.state_dict().items()}
    take_steps(training, 2)
    for name, x in training.method.encoder.state_dict().items():
        assert torch.equal(x, before[name]) is (name in ("mean", "std")), name
    save_encoder(tmp_path / ENCODER, training, "", Preparation(28, 28, 1))
    encoder = load_encoder(tmp_path)
    assert not any(layer.training for layer in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.prepare(IMAGES[:, :1]).shape[1] == 3


@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision:mnasnet0_5", "timm:test_efficientnet"])
def test_batchnorm_knows_the_images_after_a_short_training(name):
    torch.manual_seed(0)
    encoder = built(name, (3, 32, 32))
    with torch.no_grad():
        for _ in range(120):
            x = torch.randn(16, 3, 32, 32)
            for layer in encoder.modules():  # which would change features in train mode alone
                layer.training = isinstance(layer, torch.nn.BatchNorm2d)
            train_mode = encoder(x)
        spread, expected = (features.std(0).mean() for features in (encoder.eval()(x), train_mode))
    assert spread == pytest.approx(float(expected), rel=0.4)


def test_bfloat16_trains_like_float32():
    losses = [take_steps(begun(**LITE0 | {"precision": precision}), 3)[0] for precision in ("float32", "bfloat16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_a_stopped_training_goes_on_with_the_same_bits(tmp_path):
    whole, stopped, again = (begun(initial_weights="imagenet", input_size=32, **LITE0) for _ in range(3))
    _, state = take_steps(stopped, 3)
    save_state(tmp_path, pack(stopped, state, []))
    state, history = unpack(load_state(tmp_path), again, tmp_path)
    assert timeless(train(again, state, history)) == timeless(train(whole, begin_epoch(whole, 0)))
    states = again.method.state_dict(), whole.method.state_dict()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())


@pytest.mark.parametrize(("name", "size"), [("timm:convit_tiny", 32), ("timm:levit_128s", 64)])
def test_a_loaded_encoder_has_what_its_network_keeps_out_of_files(name, size, tmp_path):
    training = begun(encoder=name, input_size=size, **SMALL)
    encoder = training.method.encoder
    assert len(dict(encoder.named_buffers())) > len(encoder.state_dict()) - len(dict(encoder.named_parameters()))
    with torch.no_grad():  # so that nothing computed from the first weights can pass for these
        for p in encoder.parameters():
            p.add_(0.05 * torch.randn_like(p))
    save_encoder(tmp_path / ENCODER, training, "", Preparation(28, 28, 1))
    again, grey = load_encoder(tmp_path), IMAGES[:, :1, :28, :28]
    assert torch.equal(again(again.prepare(grey)), encoder.eval()(encoder.prepare(grey)))


def test_a_run_serves_to_embed_and_to_export(fresh_runs, tmp_path, capsys):
    run = pretrain(Settings(preset="smoke", **LITE0 | {"epochs": 1}), progress=False)
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(IMAGES[:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    table, weights = tmp_path / "out.csv", tmp_path / "out.safetensors"
    assert main(["embed", str(tmp_path / "pictures"), "--run", str(run.folder), "--out", str(table)]) == 0
    assert main(["export", str(run.folder), "--out", str(weights)]) == 0
    assert len(table.read_text().splitlines()) == 4
    own, exported = load_encoder(run), load_encoder(weights)
    names = sorted((tmp_path / "pictures").iterdir())
    assert (own.transform(names) == exported.transform(names)).all()
    assert own.transform(names).shape == (3, 1280)
    assert "out.csv" in capsys.readouterr().out


# --- Requests that cannot be served -------------------------------------------------------------------------------


def reason(**parameters):
    """The one line that such settings get before anything starts."""
    with pytest.raises(UserError) as caught:
        resolve(Settings(preset="smoke", **parameters))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("eficientnet_lite0", "'efficientnet_lite0'"),
        ("torchvison:resnet18", "'torchvision:NAME'"),
        ("torchvision:resnet_18", "'resnet18'"),
        ("timm:resnet81", "'resnet18'"),
        ("timm:", "'timm:NAME'"),
        ("torchvision", "'torchvision:NAME'"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name, told):
    assert f"Did you mean {told}?" in reason(encoder=name)


def test_a_family_of_names_has_one_class():
    assert ENCODERS["timm:resnet18"] is ENCODERS["timm:a:b"] is ENCODERS["torchvision:resnet18"]
    assert ENCODERS["timm:resnet18"] is ENCODERS["efficientnet_lite0"] is not ENCODERS["resnet18"]
    assert {"timm:NAME", "torchvision:NAME"} <= set(ENCODERS)
    assert plugins().keys() <= {"contrastive-example"}
    with pytest.raises(UserError, match="unknown encoder 'cnn:x'"):
        ENCODERS["cnn:x"]


def test_images_of_two_channels_are_refused():
    with pytest.raises(UserError, match=r"takes grey and colour images; these have 2 channels\.$"):
        ENCODERS["timm:test_vit"].check(Settings(encoder="timm:test_vit").encoder, (2, 32, 32))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchvision:vgg11", "does not take images of 28 pixels ("),
        ("torchvision:vit_b_16", "patches of 16 pixels, and 28 is no multiple"),
        ("timm:test_vit", "patches of 16 pixels, and 28 is no multiple"),
    ],
)
def test_images_too_small_for_the_network_are_refused_unless_they_are_enlarged(name, told):
    said = reason(encoder=name)
    assert told in said
    size = 160 if name.startswith("timm") else 224
    assert said.endswith(f" Set input_size={size}, to which images are enlarged.")
    ENCODERS[name].check(Settings(encoder=name, input_size=size).encoder, (1, 28, 28))
    assert "encoder efficientnet_lite0 needs at least 8x8" in refused_by_hand("efficientnet_lite0", (1, 7, 28))


def refused_by_hand(name, shape):
    with pytest.raises(UserError) as caught:
        ENCODERS[name].check(Settings(encoder=name).encoder, shape)
    return str(caught.value)


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path):
    training = begun(encoder="timm:test_resnet", **SMALL)
    save_encoder(tmp_path / ENCODER, training, "", Preparation(28, 28, 1))
    assert load_encoder(tmp_path).out_dim == 96
    monkeypatch.setattr(zoos, "find_spec", lambda name: None)
    outside._check_size.cache_clear()
    needs = r"timm:test_resnet needs the package timm, which is not installed: pip install -e '\.\[timm\]'\.$"
    with pytest.raises(UserError, match=needs):
        resolve(Settings(preset="smoke", encoder="timm:test_resnet"))
    with pytest.raises(UserError, match=needs) as caught:
        load_encoder(tmp_path)
    assert not isinstance(caught.value, DamagedError)
    assert "efficientnet_lite_pytorch, which is not installed" in reason(encoder="efficientnet_lite0")
