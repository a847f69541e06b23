"""Pictures of all kinds come to one shape and depth, whatever their order; what is damaged is named."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import UserError
from contrastive.data import forget_images, load_images, pictures

from .packed_files import (  # noqa: F401
    N,
    as_pillow_has_it,
    caches,
    fixture_decoded,
    fixture_few_at_a_time,
    pack,
    save,
    scene,
    scenes,
)

pytestmark = pytest.mark.usefixtures("fresh_runs")


# --- One shape for all --------------------------------------------------------------------------------------------


def test_pictures_of_one_shape_stay_as_they_are(tmp_path):
    arrays = scenes(height=20, width=28)
    found = pack(save(tmp_path / "a", arrays))
    np.testing.assert_array_equal(found.pixels, np.stack(arrays).transpose(0, 3, 1, 2))
    assert found.reason == ""


# What most are, the one that is not like them, and side and channels of what all become
MIXTURES = {
    "size": (scenes(N - 1, height=40, width=50), scene(99, 90, 31), 40, 3),
    "size and colour": (scenes(N - 1, height=40, width=50, channels=1), scene(99, 90, 61), 40, 3),
    "colour": (scenes(N - 1, channels=1), scene(99), 24, 3),
    "grey": (scenes(N - 1), scene(99, channels=1), 24, 3),
}


@pytest.mark.parametrize("place", [0, 1, 10, N - 1])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_one_picture_unlike_the_others_is_found_wherever_it_is(mixture, place, tmp_path, few_at_a_time):
    most, odd, side, channels = MIXTURES[mixture]
    arrays = [*most[:place], odd, *most[place:]]
    found = pack(save(tmp_path / "a", arrays))
    np.testing.assert_array_equal(found.pixels, [as_pillow_has_it(array, side, channels) for array in arrays])


@pytest.mark.parametrize("place", [0, 1, 10, N - 1])
def test_one_deep_picture_among_others_gets_a_window_wherever_it_is(place, tmp_path, few_at_a_time, monkeypatch):
    monkeypatch.setattr(pictures, "WINDOW_SAMPLE", 2)  # in which it may not be
    deep = np.random.default_rng(0).integers(500, 3000, (24, 24)).astype(np.uint16)
    arrays = scenes(N - 1, channels=1)
    arrays.insert(place, deep)
    found = pack(save(tmp_path / "a", arrays))
    low, high = np.percentile(deep, [0.1, 99.9])
    assert found.preparation.window == pytest.approx((low, high))
    expected = np.stack(arrays)
    expected[place] = np.clip(np.rint((deep - low) * 255 / (high - low)), 0, 255)
    assert np.abs(found.pixels[:, 0].astype(int) - expected).max() <= (expected.dtype != np.uint8)
    np.testing.assert_array_equal(np.delete(found.pixels[:, 0], place, 0), np.delete(expected, place, 0))


def test_all_that_can_be_unlike_at_once(tmp_path, few_at_a_time):
    arrays = [*scenes(8, channels=1), *scenes(8, height=50, width=34), (scene(5, 30, 30, 1).astype(np.uint16) * 100)]
    sides = {}
    for order in ([*range(17)], [*range(16, -1, -1)], np.random.default_rng(0).permutation(17).tolist()):
        found = pack(save(tmp_path / str(order[0]), [arrays[i] for i in order]))
        sides[order[0]] = found.pixels[np.argsort(order)]
        assert found.preparation.window is not None
    first, *others = sides.values()
    assert first.shape == (17, 3, 24, 24)  # 8 shorter sides are 24, one is 30 and 8 are 34
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_large_pictures_of_one_size_become_small_ones_and_the_account_says_why(tmp_path):
    arrays = scenes(N, height=150, width=100)
    found = load_images(save(tmp_path / "a", arrays))
    assert found.format.shape == (3, 96, 64)
    assert "all are larger than 64 pixels" in found.account.prepared
    assert "image_size keeps more" in found.account.prepared
    expected = [np.asarray(Image.fromarray(a).resize((64, 96), Image.Resampling.BICUBIC)) for a in arrays]
    train = [int(Path(name).stem) for name in found.train_names]
    # 150 / 1.5625 is 96: nothing is cut
    np.testing.assert_array_equal(found.train, np.stack(expected).transpose(0, 3, 1, 2)[train])


@pytest.mark.parametrize(("sides", "expected"), [
    ([10, 11, 12], 8), ([3, 4, 5], 8), ([30, 47, 90], 40), ([20, 20, 50, 70], 32), ([100, 300, 2000], 64),
])  # fmt: skip
def test_the_size_of_mixed_pictures_is_that_of_the_middle_one(sides, expected, tmp_path):
    folder = save(tmp_path / "a", [scene(i, side, side + 5 * i) for i, side in enumerate(sides)])
    found = pack(folder)
    assert found.pixels.shape[2:] == (expected, expected)
    assert f"they have {len(sides)} sizes" in found.reason
    assert f"sides of {min(sides)} to" in found.reason


def test_an_image_size_that_is_asked_for_is_given(tmp_path):
    arrays = [*scenes(4, height=40, width=60), scene(9, 100, 30)]
    found = pack(save(tmp_path / "a", arrays), image_size=80)
    np.testing.assert_array_equal(found.pixels, [as_pillow_has_it(array, 80, 3) for array in arrays])
    assert found.reason == "asked for by image_size"


@pytest.mark.parametrize("first", ["jpg", "png"])
def test_large_jpegs_and_pngs_of_one_size_are_of_one_size(first, tmp_path):
    # A JPEG of that size is decoded at a quarter of it
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(4):
        kind = ("jpg", "png")[(i + (first == "png")) % 2]
        Image.fromarray(scene(i, 512, 768)).save(folder / f"{i}.{kind}", quality=95)
    found = pack(folder)
    assert found.pixels.shape == (4, 3, 64, 96)
    assert "all are larger than 64 pixels" in found.reason


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_other_shapes_are_fitted_as_asked(fit, tmp_path):
    folder = save(tmp_path / "a", [np.full((64, 32, 3), 255, np.uint8)])
    found = pack(folder, image_size=32, fit=fit)
    assert found.preparation.fit == fit
    white = (found.pixels[0] == 255).all(axis=(0, 1))
    assert white.sum() == (16 if fit == "pad" else 32)


# --- More than 8 bits ---------------------------------------------------------------------------------------------


def ramps(n=6):
    """Pictures of 4,096 values each, from 1,000 on."""
    return [np.roll(np.arange(1000, 5096), 64 * i).reshape(64, 64).astype(np.uint16) for i in range(n)]


@pytest.mark.parametrize("window", ["auto", "1000:5095"])
def test_a_ramp_of_16_bits_keeps_its_levels(window, tmp_path):
    found = load_images(save(tmp_path / "a", ramps()), window=window)
    assert all(len(np.unique(image)) >= 250 for image in found.train)
    low, high = found.preparation.window
    assert (low, high) == pytest.approx((1000, 5095), abs=5)
    assert f"values from {low:g} to {high:g} as 0 to 255" in found.account.prepared
    number = int(Path(found.train_names[0]).stem)
    exact = (ramps()[number].astype(int) - 1000) * 255 / 4095
    assert np.abs(found.train[0, 0].numpy() - exact).max() < 1


def test_a_window_can_be_given(tmp_path):
    found = pack(save(tmp_path / "a", ramps()), window="2000:3000")
    assert found.preparation.window == (2000, 3000)
    exact = np.clip((np.stack(ramps()).astype(int) - 2000) * 255 / 1000, 0, 255)
    assert np.abs(found.pixels[:, 0] - exact).max() <= 0.5


def test_a_few_extreme_values_do_not_stretch_the_window(tmp_path):
    arrays = [np.random.default_rng(i).integers(900, 1100, (64, 64)).astype(np.uint16) for i in range(4)]
    for array in arrays:
        array[0, :2] = 0, 65535
    low, high = pack(save(tmp_path / "a", arrays)).preparation.window
    assert 800 < low < 1000 < high < 1200


# --- Damaged files ------------------------------------------------------------------------------------------------


def test_all_damaged_files_are_named_and_can_be_left_out(tmp_path):
    folder = save(tmp_path / "a", scenes())
    arrays = scenes()
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "007.png").write_bytes(b"")
    (folder / "011.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError) as error:
        load_images(folder)
    said = str(error.value)
    assert "\n" not in said
    assert re.search(r"3 files in .* cannot be read: 003\.png is truncated; 007\.png is empty; 011\.png", said)
    assert "skip_damaged=true" in said
    found = load_images(folder, skip_damaged=True)
    names = [*found.train_names, *found.test_names]
    assert sorted(names) == [f"{i:03}.png" for i in range(N) if i not in (3, 7, 11)]
    assert [name for name, _ in found.account.damaged] == ["003.png", "007.png", "011.png"]
    for name, image in zip(names, torch.cat([found.train, found.test]), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), arrays[int(name[:3])])


def test_what_could_not_be_read_for_a_moment_is_read_again(tmp_path, monkeypatch):
    arrays = scenes()
    folder = save(tmp_path / "a", arrays)
    unlucky = (folder / "007.png").read_bytes()
    real = pictures.decode

    def short_of_memory(content, *rest):
        if content == unlucky:
            raise pictures.Undecodable("needs more memory than there is")
        return real(content, *rest)

    with monkeypatch.context() as moment:
        moment.setattr(pictures, "decode", short_of_memory)
        with pytest.raises(UserError, match=r"007\.png needs more memory"):
            load_images(folder)
        assert len(load_images(folder, skip_damaged=True).account.damaged) == 1
    forget_images()
    found = load_images(folder)
    assert not found.account.damaged
    names = [*found.train_names, *found.test_names]
    image = torch.cat([found.train, found.test])[names.index("007.png")]
    np.testing.assert_array_equal(image.permute(1, 2, 0), arrays[7])


def test_of_many_damaged_files_the_first_are_named(tmp_path):
    folder = save(tmp_path / "a", scenes())
    for i in range(2, 14):
        (folder / f"{i:03}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"12 files .*002\.png is empty.*; and 2 more\."):
        load_images(folder)


def test_where_the_first_file_is_damaged_the_next_one_is_looked_at(tmp_path):
    folder = save(tmp_path / "a", scenes())
    (folder / "000.png").write_bytes(b"")
    found = pack(folder)
    assert found.damaged == {0: "is empty"}
    assert not found.pixels[0].any()
    np.testing.assert_array_equal(found.pixels[1:], np.stack(scenes()[1:]).transpose(0, 3, 1, 2))


def test_where_nothing_can_be_read_one_reason_is_given(tmp_path):
    folder = save(tmp_path / "a", scenes(3))
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 3 pictures can be read; 000\.png is empty\. Replace them\.$"):
        pack(folder)


# --- Arrays -------------------------------------------------------------------------------------------------------


def test_arrays_stay_in_memory(fresh_runs):
    arrays = np.stack(scenes(12, height=96, width=96))
    found = load_images(arrays)
    expected = [as_pillow_has_it(array, 64, 3) for array in arrays]
    train, test = ([int(name.split()[-1]) for name in names] for names in (found.train_names, found.test_names))
    np.testing.assert_array_equal(found.train, np.stack(expected)[train])
    np.testing.assert_array_equal(found.test, np.stack(expected)[test])
    assert not caches(fresh_runs)


def test_deep_arrays_get_a_window(fresh_runs):
    found = load_images(np.stack(ramps(12)))
    assert all(len(np.unique(image)) >= 250 for image in found.train)
    assert found.preparation.window == pytest.approx((1000, 5095), abs=5)
    assert not caches(fresh_runs)
