"""General features: computed once for each image and network, kept through kills and damage; joined with others."""

import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from contrastive import UserError
from contrastive.data.images import ImageFormat, Images
from contrastive.encoders.general import GeneralEncoder
from contrastive.encoders.zoos import Network
from contrastive.evaluation import general
from contrastive.evaluation.feature_store import image_keys
from contrastive.evaluation.general import general_features, general_network
from contrastive.settings import EvaluationSettings

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (50, 1, 12, 12), dtype=torch.uint8, generator=GENERATOR)


class Means(nn.Module):
    """Means of each channel and quarter, times a weight; counts the images that it has seen."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight, self.seen, self.fails_after = nn.Parameter(torch.tensor(weight)), 0, None

    def forward(self, x):
        self.seen += len(x)
        if self.fails_after is not None and self.seen > self.fails_after:
            raise KeyboardInterrupt
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.weight


def network(weight: float = 1.0, size: int = 16) -> GeneralEncoder:
    body = Means(weight)
    return GeneralEncoder("means", Network(body, size, (0.5,) * 3, (0.25,) * 3), 12, size).eval()


def parts(folder):
    return sorted(folder.glob("cache/general-*/part-*.safetensors"))


def expected(encoder, images=IMAGES):
    with torch.no_grad():
        return torch.cat([encoder(encoder.prepare(image[None])) for image in images])


def test_only_images_that_are_new_are_computed(fresh_runs, monkeypatch):
    monkeypatch.setattr(general, "PART", 16)
    first = network()
    found = general_features(first, IMAGES[:30])
    assert (found.dtype, first.body.seen) == (torch.float32, 30)
    assert [len(load_file(path)["keys"]) for path in parts(fresh_runs)] in ([16, 14], [14, 16])
    again = network()
    order = torch.randperm(50, generator=GENERATOR)
    torch.testing.assert_close(general_features(again, IMAGES[order]), expected(network())[order])
    assert again.body.seen == 20
    assert torch.equal(general_features(network(), IMAGES[:30]), found)


def test_equal_images_are_computed_once_and_others_of_the_same_bytes_are_not_equal(fresh_runs):
    encoder = network()
    twice = general_features(encoder, IMAGES[[3, 4, 3]])
    assert encoder.body.seen == 2
    assert torch.equal(twice[0], twice[2])
    general_features(encoder, IMAGES[3].reshape(1, 1, 6, 24))
    assert encoder.body.seen == 3
    assert len(set(image_keys(IMAGES))) == 50


def test_each_network_has_its_own(fresh_runs):
    networks = [network(), network(2.0), network(size=20)]
    found = [general_features(encoder, IMAGES[:5]) for encoder in networks]
    assert [encoder.body.seen for encoder in networks] == [5, 5, 5]
    torch.testing.assert_close(found[1], 2 * found[0])
    assert len({path.parent for path in parts(fresh_runs)}) == 3


def test_what_was_computed_before_a_kill_is_kept(fresh_runs, monkeypatch):
    monkeypatch.setattr(general, "PART", 10)
    stopped = network()
    stopped.body.fails_after = 25
    with pytest.raises(KeyboardInterrupt):
        general_features(stopped, IMAGES)
    assert len(parts(fresh_runs)) == 2
    after = network()
    torch.testing.assert_close(general_features(after, IMAGES), expected(network()))
    assert after.body.seen == 30


@pytest.mark.parametrize("where", [0.01, 0.3, 0.6, 0.99])
def test_damaged_parts_are_dropped_and_computed_anew(fresh_runs, monkeypatch, capfd, where):
    monkeypatch.setattr(general, "PART", 10)
    general_features(network(), IMAGES)
    path = parts(fresh_runs)[1]
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0xFF
    path.write_bytes(content)
    after = network()
    torch.testing.assert_close(general_features(after, IMAGES), expected(network()))
    assert after.body.seen == 10
    assert len(general_features(network(), IMAGES)) == 50
    path.write_bytes(b"")
    assert general_features(network(), IMAGES).shape == (50, 12)
    assert "is damaged. Its features are computed again." in capfd.readouterr().err


def test_several_at_once_compute_each_image_once(fresh_runs, monkeypatch):
    monkeypatch.setattr(general, "PART", 10)
    encoders, found = [network() for _ in range(4)], {}

    def work(i):
        found[i] = general_features(encoders[i], IMAGES, progress=False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encoder.body.seen for encoder in encoders) == 50
    assert all(torch.equal(found[i], found[0]) for i in range(4))


def test_another_process_finds_the_same_features(fresh_runs):
    own = general_features(network(), IMAGES)
    code = (
        "import sys, torch; from tests.test_general_features import *; encoder = network();"
        "torch.save((general_features(encoder, IMAGES), encoder.body.seen), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(fresh_runs / "found.pt")], check=True)
    found, seen = torch.load(fresh_runs / "found.pt")
    assert torch.equal(found, own)
    assert seen == 0


def test_no_images_have_no_features_and_wrong_ones_are_refused(fresh_runs):
    assert general_features(network(), IMAGES[:0]).shape == (0, 12)
    with pytest.raises(UserError, match="2 channels"):
        general_features(network(), IMAGES.expand(-1, 2, -1, -1))


def test_a_network_stays_in_eval_mode_within_a_method_that_is_trained():
    layer = nn.BatchNorm2d(3)
    body = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    method = nn.Sequential(GeneralEncoder("x", Network(body, 8, (0.5,) * 3, (0.25,) * 3), 3, 8), nn.Linear(3, 2))
    method.train()
    method(torch.randn(4, 3, 8, 8, generator=GENERATOR)).sum().backward()
    assert (method.training, layer.training, int(layer.num_batches_tracked)) == (True, False, 0)
    assert layer.weight.grad is not None


# --- Which network ------------------------------------------------------------------------------------------------


def images(channels: int) -> Images:
    pixels, labels = torch.zeros(4, channels, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    level = (0.5,) * channels
    return Images("x", pixels, labels, pixels, labels, ("a", "b"), level, level, "0")


def test_the_network_is_as_settings_say(monkeypatch):
    usual = EvaluationSettings()
    assert isinstance(images(1).format, ImageFormat)
    found = general_network(usual, images(3), precision="bfloat16")
    assert (found.name, found.size, found.precision) == ("efficientnet_lite0", 112, "bfloat16")
    assert general_network(usual.model_copy(update={"general_size": 64}), images(1)).size == 64
    assert general_network(usual.model_copy(update={"general": "none"}), images(3)) is None
    assert general_network(usual, images(5)) is None
    named = usual.model_copy(update={"general": "efficientnet_lite0"})
    with pytest.raises(UserError, match="5 channels"):
        general_network(named, images(5))
    monkeypatch.setattr(general, "why_no_general", lambda name: "is not installed")
    assert general_network(usual, images(3)) is None
    with pytest.raises(UserError, match="does not exist"):
        general_network(usual.model_copy(update={"weights": "/none.pth"}), images(3))
