"""Augmentation policies as text, and the one that `auto` stands for."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import Settings, load_images, resolve
from contrastive.augment import OPERATIONS, POLICIES, automatic_policy, describe_policy, parse_policy, spell_policy
from contrastive.data.idx import IDX_FILES
from contrastive.settings import SPELLERS, data_root

from .conftest import HAVE_MNIST
from .mnist_files import small_set


def test_policies_are_read():
    assert parse_policy("none") == {}
    assert parse_policy("simclr-crop-hflip-grayscale+blur:0:1") == {"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.0, 1.0)}
    assert parse_policy("rotate+crop:.3:1") == {"crop": (0.3, 1.0), "rotate": (15.0,)}  # in the order of application
    assert parse_policy("simclr+hflip:0.1")["hflip"] == (0.1,)
    for op in OPERATIONS:
        assert op not in parse_policy(f"simclr+{op}-{op}")
        assert parse_policy(op)[op] == tuple(usual for *_, usual in OPERATIONS[op].values())


def test_policies_are_spelled_as_they_are_applied():
    assert spell_policy("rotate+crop") == spell_policy("crop+rotate") == "crop:0.08:1+rotate:15"
    assert spell_policy("simclr") == POLICIES["simclr"]
    assert spell_policy("simclr-blur") == spell_policy("natural")
    assert spell_policy("hflip-hflip") == "none"
    for name in POLICIES:
        assert parse_policy(spell_policy(name)) == parse_policy(name)
    assert SPELLERS["policy"]("auto") == "auto"
    assert SPELLERS["policy"]("grey-hflip") == spell_policy("crop:0.6:1+rotate:20+jitter:0.4:0.4:0:0")


def write_npz(path, channels):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    pixels = {f"{part}_images": rng.integers(0, 256, (60, 16, 16, channels), np.uint8) for part in ("train", "test")}
    np.savez(path, **pixels, train_labels=labels, test_labels=labels)


def write_folder(path, mode, coloured=()):
    for i in range(60):
        for part in ("train", "test"):
            place = path / part / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            image = Image.effect_noise((16, 16), 50 + i).convert(mode)
            if i in coloured:
                image.paste((250, 10, 10), (0, 0, 8, 8))
            image.save(place / f"{i}.png")


def write_idx(path):
    path.mkdir()
    for name, content in small_set().items():
        (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("write", "policy"),
    [
        (lambda p: write_npz(p, 1), "grey"),
        (lambda p: write_npz(p, 3), "natural"),
        (lambda p: write_folder(p, "L"), "grey"),
        (lambda p: write_folder(p, "RGB"), "grey"),  # saved with three channels, but without a colour
        (lambda p: write_folder(p, "RGB", range(60)), "natural"),
        (lambda p: write_folder(p, "RGB", [7]), "natural"),
        (write_idx, "grey"),  # FashionMNIST has files of the same names
    ],
    ids=["grey.npz", "colour.npz", "grey folder", "grey RGB folder", "colour folder", "one coloured", "idx"],
)
def test_auto_goes_by_channels_for_images_from_anywhere(tmp_path, write, policy):
    write(path := tmp_path / "data.npz")
    settings, images = resolve(Settings(dataset=str(path), batch_size=8, second_augment="auto"))
    assert automatic_policy(images)[0] == policy
    assert (settings.views.augment, settings.views.second_augment) == (policy, policy)


def test_auto_is_for_handwriting_where_the_images_are_digits():
    settings, _ = resolve(Settings(dataset="sklearn_digits"))
    assert (settings.views.augment, settings.views.second_augment) == ("handwriting", None)
    asked, _ = resolve(Settings(dataset="sklearn_digits", augment="simclr", second_augment="none"))
    assert (asked.views.augment, asked.views.second_augment) == ("simclr", "none")


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_mnist_is_known_by_its_content_wherever_it_lies(tmp_path):
    raw = data_root() / "MNIST" / "raw"
    for name in IDX_FILES:
        shutil.copy(raw / name, tmp_path / name)
    for dataset in ("mnist", str(tmp_path)):
        settings, _ = resolve(Settings(dataset=dataset))
        assert settings.views.augment == "handwriting"
    labels = np.fromfile(raw / IDX_FILES[3], np.uint8)
    labels[8:10] = labels[9:7:-1]
    labels.tofile(tmp_path / IDX_FILES[3])
    (tmp_path / "other").mkdir()
    for name in IDX_FILES:
        (tmp_path / name).rename(tmp_path / "other" / name)
    assert automatic_policy(load_images(str(tmp_path / "other")))[0] == "grey"


def test_a_policy_is_told_with_what_it_means_and_why():
    images = load_images("sklearn_digits")
    assert describe_policy("handwriting", images) == (
        "Views are drawn by policy `handwriting`, which is what `augment=auto` takes, since these are digits: "
        f"`{POLICIES['handwriting']}`."
    )
    assert describe_policy("crop:0.5:1", images) == "Views are drawn by policy `crop:0.5:1`."
    assert "auto" not in describe_policy("simclr", images)


def test_every_policy_suits_the_channels_that_auto_gives_it():
    # A saturation or a hue would do nothing on one channel, and brightness alone little on three.
    def strengths(name):
        return parse_policy(name)["jitter"]

    assert strengths("handwriting")[2:] == strengths("grey")[2:] == (0, 0)
    assert torch.tensor(strengths("natural")).min() > 0
    assert "hflip" not in parse_policy("handwriting")
