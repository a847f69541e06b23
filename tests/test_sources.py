"""Data from anywhere: read as others read it, or refused in one line, before anything is executed or allocated."""

import io
import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import Settings, UserError, load_images
from contrastive.data import forget_images, inert
from contrastive.data.pictures import Reading
from contrastive.data.sources import find_pictures

from .source_cases import counts_agree, little_memory, noise, picture, put, refused, rows_of

FOUR = {"train/cat": 20, "train/dog": 20, "test/cat": 4, "test/dog": 4}


class Attack:
    """Pickled, it is a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of images, two classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "pets", FOUR)
    yield tmp_path / "pets"
    assert not (tmp_path / "executed").exists()


def saved(image, kind):
    made = io.BytesIO()
    image.save(made, kind)
    return made.getvalue()


def test_a_folder_of_images(folder):
    images = load_images(str(folder))
    assert images.classes == ("cat", "dog")
    assert (images.name, images.note) == ("pets", "")
    assert images.train.shape == (40, 1, 8, 8)
    assert images.train.dtype == images.test.dtype == torch.uint8
    assert images.test_labels.tolist() == [0] * 4 + [1] * 4
    assert images.train_names[27] == "train/dog/07.png"
    with Image.open(folder / "train/dog/07.png") as file:
        assert np.array_equal(images.train[27, 0], file)
    pixels = np.stack([np.asarray(Image.open(folder / name)) for name in images.train_names])
    assert images.mean[0] == pytest.approx(pixels.mean() / 255, abs=1e-4)
    assert images.std[0] == pytest.approx(pixels.std() / 255, abs=1e-4)
    counts_agree(images)


def test_one_colour_image_makes_all_have_three_channels(folder):
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "train" / "cat" / "99.bmp")
    images = load_images(folder)
    assert images.train.shape == (41, 3, 8, 8)
    assert np.array_equal(images.train[20].permute(1, 2, 0), pixels)
    assert torch.equal(images.train[0, 0], images.train[0, 2])
    assert np.array_equal(images.train[0, 1], noise("train/cat/00.png"))
    assert images.account.prepared.startswith("colour, 8x8 pixels")


def test_sizes_that_differ_are_brought_to_one(folder):
    Image.fromarray(np.full((20, 12), 77, np.uint8)).save(folder / "test" / "cat" / "other.png")
    images = load_images(folder)
    assert images.train.shape[2:] == (8, 8)
    assert "2 sizes, with sides of 8 to 20 pixels" in images.account.prepared
    other = images.test[images.test_names.index("test/cat/other.png")]
    assert (other == 77).all()
    assert load_images(folder, image_size=16).train.shape[2:] == (16, 16)


def test_what_was_done_to_pictures_is_counted(folder):
    image, exif = Image.fromarray(noise("x")), Image.Exif()
    exif[274] = 3  # upside down
    image.save(folder / "train/cat/turned.jpg", exif=exif, quality=100)
    Image.fromarray(np.dstack([noise("r"), noise("g"), noise("b"), noise("alpha")]), "RGBA").save(
        folder / "test/dog/a.png"
    )
    images = load_images(folder)
    assert dict(images.account.done) == {
        "turned upright by its EXIF entry": 1, "transparent: laid over white": 1,
    }  # fmt: skip
    turned = images.train[images.train_names.index("train/cat/turned.jpg")][0].numpy()
    with Image.open(folder / "train/cat/turned.jpg") as file:
        assert np.array_equal(turned, np.asarray(file)[::-1, ::-1])


def png_of(width, height):
    """A PNG whose header claims a size that its data do not bear out."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


HOSTILE = {
    "empty": ("x.png", b"", "is empty"),
    "truncated": ("x.jpg", saved(Image.effect_noise((20, 16), 90), "JPEG")[:-100], "is (truncated|damaged)"),
    "a huge PNG": ("x.png", png_of(100_000, 100_000), "million pixels"),
    "the largest PNG": ("x.png", png_of(2**31 - 1, 2**31 - 1), "million pixels|is damaged"),
    "a large PNG without its pixels": ("x.png", png_of(20_000, 20_000), "million pixels"),
    "PostScript": (
        "x.jpg",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\n(touch executed) run\n",
        "is no image",
    ),
    "a pickle": ("x.png", pickle.dumps(Attack()), "is no image"),
    "a page": ("x.jpg", b"<!DOCTYPE html><p>404", r"is no image \(HTML\)"),
    "a pointer of Git LFS": ("x.jpg", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "an archive": ("x.png", b"PK\3\4", r"is no image \(ZIP\)"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_images_are_named_and_can_be_skipped(folder, kind):
    name, content, said = HOSTILE[kind]
    (folder / "train" / "dog" / name).write_bytes(content)
    with little_memory():
        refused(folder, rf"^1 file in .*pets cannot be read: train/dog/{name} .*{said}.*skip_damaged=true")
        images = load_images(folder, skip_damaged=True)
    assert rows_of(images) == {"train": {"cat": 20, "dog": 20}, "test": {"cat": 4, "dog": 4}}
    assert images.account.left_out == (("train/dog", "damaged", 1),)
    ((file, why),) = images.account.damaged
    assert file == f"train/dog/{name}"
    assert why


def test_a_sound_file_of_another_kind_than_its_name_tells_is_read(folder):
    (folder / "train/cat/00.png").write_bytes(saved(Image.fromarray(noise("x")), "BMP"))
    images = load_images(folder)
    assert np.array_equal(images.train[0, 0], noise("x"))


def test_all_damaged_files_are_told_at_once_the_first_ten_by_name(folder):
    for i in range(13):
        (folder / "train/cat" / f"{i:02}.png").write_bytes(b"?")
    refused(folder, r"^13 files .*: train/cat/00.png is no image; .*train/cat/09.png is no image; and 3 more\. Replace")


def test_folders_within_folders_without_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        os.chdir(tmp_path / name)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        for i in range(3):
            Path(f"{i}.png").write_bytes(picture(f"{name}{i}"))
    os.chdir(here)
    images = load_images(tmp_path)
    for name in ("cat", "dog"):  # pytest could not: what removes folders nests calls
        for _ in range(1200):
            os.rename(tmp_path / name / "d", tmp_path / "inner")
            shutil.rmtree(tmp_path / name)
            os.rename(tmp_path / "inner", tmp_path / name)
    assert images.classes == ("cat", "dog")
    assert len(images.train) + len(images.test) == 6


@pytest.mark.parametrize("options", [{}, {"image_size": 16}])
def test_nothing_is_said_of_intact_files_by_warnings(folder, options, recwarn):
    palette = Image.fromarray(noise("x")).convert("P")
    for i in range(5):
        palette.save(folder / "train" / "cat" / f"p{i}.png", transparency=bytes([0] * 8 + [255] * 248))
    assert len(load_images(folder, **options).train) == 45
    assert [str(warning.message) for warning in recwarn] == []


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    put(tmp_path, {"cat": 250, "dog": 250})  # of which test images are drawn, and copied into memory
    monkeypatch.setattr(os, "sysconf", lambda name: 2**6)  # 4 kB of memory
    refused(tmp_path, "GB; this machine has .* GB of memory")


def test_what_does_not_fit_is_told():
    for options, said in (
        ({"image_size": 4}, "image_size"), ({"fit": "squeeze"}, "fit"), ({"background": "red"}, "background"),
        ({"window": "5:1"}, "window"), ({"group": "(["}, "group"), ({"split_seed": -1}, "split_seed"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            load_images("digits", **options)


def test_a_name_is_not_confounded_with_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, {"pets/cat": 5, "pets/dog": 5, "digits/cat": 5, "digits/dog": 5})
    assert load_images("pets").name == "pets"
    assert load_images("digits").name == "sklearn_digits"
    assert load_images("./digits").name == "digits (folder)"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images("~/pets").sha256 == load_images(tmp_path / "pets").sha256
    with pytest.raises(UserError, match=r"unknown data set 'pest'.*A folder of images"):
        load_images("pest")
    with pytest.raises(UserError, match="there is no /pets"):
        load_images("/pets")
    with pytest.raises(UserError, match="unknown data set ''"):
        load_images("")


def test_pictures_are_found_whatever_their_labels(folder, tmp_path):
    data = Settings().data
    found = find_pictures(str(folder), Reading(), data)
    assert len(found.names) == 48
    assert np.array_equal(found.picture(0).pixels[..., 0], noise("test/cat/00.png"))
    put(tmp_path, {"one": picture("x")})
    one = find_pictures(str(tmp_path / "one"), Reading(), data)
    assert np.array_equal(one.picture(0).pixels[..., 0], noise("x"))


def test_images_are_given_again_only_while_nothing_changed(folder):
    images = load_images(folder)
    assert load_images(folder) is images
    (folder / "note.txt").write_text("x")
    assert load_images(folder) is not images
    forget_images()
    assert load_images(folder).sha256 == images.sha256


def test_the_checksum_is_of_what_is_seen_wherever_it_lies(folder, tmp_path):
    sums = {load_images(folder).sha256}
    folder.rename(tmp_path / "moved")
    sums.add(load_images(tmp_path / "moved").sha256)
    assert len(sums) == 1
    (tmp_path / "moved/train/cat").rename(tmp_path / "moved/train/emu")
    (tmp_path / "moved/test/cat").rename(tmp_path / "moved/test/emu")
    sums.add(load_images(tmp_path / "moved").sha256)
    assert len(sums) == 2  # emus come after dogs
    (tmp_path / "moved").rename(folder)


def test_names_from_outside_are_inert():
    assert inert("<b>'\"&`$\\[x](y)\u202e\n\x1b") == "_b________x_(y)___"
    assert inert("Röntgen 3.1 (left), 日本") == "Röntgen 3.1 (left), 日本"


@pytest.mark.parametrize("labels", [None, [0, 1] * 20])
def test_a_colour_array_of_ones_own(labels):
    array = np.random.default_rng(0).integers(0, 256, (40, 20, 16, 3), np.uint8)  # which can be written to
    images = load_images(array, labels=labels)
    assert len(images.train) + len(images.test) == 40
    assert images.train.shape[1:] == (3, 20, 16)
    place = int(images.train_names[0].rpartition(" ")[2])
    assert np.array_equal(images.train[0].permute(1, 2, 0).numpy(), array[place])


def test_what_an_encoder_will_do_to_other_pictures_names_its_run():
    array = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    checksums = {load_images(array, **options).sha256 for options in ({}, {"fit": "pad"}, {"background": "black"})}
    assert len(checksums) == 3
    deep = np.round(array / 255 * 4000).astype(np.uint16)
    deep[0, 0, :2] = 0, 4000
    assert load_images(deep, window="0:4000").sha256 != load_images(array).sha256


def test_options_are_parameters_of_data():
    with pytest.raises(UserError, match="unknown parameter of data 'epochs'"):
        load_images("digits", epochs=3)


def test_what_was_loaded_is_known_by_another_name_of_its_path(tmp_path, monkeypatch):
    put(tmp_path / "some", {"a": 10, "b": 10})
    monkeypatch.chdir(tmp_path)
    assert load_images("some") is load_images(tmp_path / "some") is load_images("some/../some", n_images=5)
