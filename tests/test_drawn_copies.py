"""Copies stay on one side of a split that is drawn, and are left out of training on request."""

import numpy as np
import pytest
from PIL import Image

from contrastive import UserError, load_images
from contrastive.data import across_splits
from contrastive.data.held_out import completed
from contrastive.data.manifest import TEST, TRAIN

from .source_cases import picture, put
from .test_copies import textured
from .test_drawn_splits import drawn, manifest


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("patients", [False, True])
@pytest.mark.parametrize("labelled", [0, 60, 100])
def test_copies_are_on_one_side_of_a_drawn_split(seed, patients, labelled):
    rng = np.random.default_rng(seed)
    copies = rng.integers(0, 60, 100)  # most images have one
    labels = [None if i >= labelled else "ab"[i % 2] for i in range(100)]
    groups = (copies // 3).astype(str).tolist() if patients else None  # copies are of one patient
    kept, test, m = drawn(labels, groups, seed, copies=copies)
    train = sorted({*kept} - {*test})
    assert test
    assert not {copies[i] for i in test} & {copies[i] for i in train}
    if patients:
        assert not {groups[i] for i in test} & {groups[i] for i in train}
    elif labelled:
        assert 0.05 < len(test) / labelled < 0.4
    gone = 100 - len(kept)
    assert gone == sum(n for _, n in m.left_out.items())
    assert labelled == 60 or patients or not gone


@pytest.mark.parametrize("seed", range(12))
def test_a_class_of_copies_is_never_tested_on_without_being_trained_on(seed):
    _, test, m = drawn(["a"] * 40 + ["rare"] * 6, seed=seed, copies=[*range(40), *[99] * 6])
    assert not {*test} & {*range(40, 46)}
    assert any("rare has no test images" in remark for remark in m.remarks)


def test_copies_of_copies_are_left_out_and_what_is_left_is_checked(tmp_path):
    pictures = [picture(str(i)) for i in range(40)]
    files = {f"train/{'ab'[i % 2]}/{i}.png": pictures[i] for i in range(30)}
    files |= {f"train/a/{i}.png": pictures[30] for i in range(100, 103)}  # three times, and once to test on
    files |= {f"test/{'ab'[i % 2]}/{i}.png": pictures[i] for i in range(30, 40)}
    put(tmp_path / "some", files)
    images = load_images(tmp_path / "some")
    train, test = across_splits(images, exact=True)
    assert [images.train_names[i] for i in train] == [f"train/a/{i}.png" for i in (100, 101, 102)]
    assert [images.test_names[i] for i in test] == ["test/a/30.png"]
    left = load_images(tmp_path / "some", drop_copies=True)
    assert len(left.train) == 30
    assert not len(across_splits(left)[0])
    put(
        tmp_path / "all",
        {f"{part}/{'ab'[i % 2]}/{i}.png": pictures[i] for i in range(20) for part in ("train", "test")},
    )
    with pytest.raises(UserError, match="no images to train on that are left"):
        load_images(tmp_path / "all", drop_copies=True)
    files = {f"train/{'ab'[i % 2]}/{i}.png": pictures[i] for i in range(20)}
    files |= {f"test/{'ab'[i % 2]}/{i}.png": pictures[i] for i in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 21)}
    put(tmp_path / "one", files)
    with pytest.raises(UserError, match="class 'a' has test images, but none to train on"):
        load_images(tmp_path / "one", drop_copies=True)


def test_given_test_images_are_not_searched_for_copies():
    def never(places):
        raise AssertionError

    m = completed(manifest(list("abab"), splits=[TRAIN, TRAIN, TEST, TEST]), 0, "here", never)
    assert m.splits == [TRAIN, TRAIN, TEST, TEST]


def test_of_test_images_that_are_drawn_no_near_copy_is_trained_on(tmp_path):
    photographs = textured(300).permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(photographs):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        picture = Image.fromarray(image)
        picture.save(folder / f"{i:03}.png")
        if i < 60:
            picture.save(folder / f"{i:03}_again.jpg", quality=80)
    images = load_images(tmp_path)
    assert not len(across_splits(images)[0])
    left_out = sum(n for _, why, n in images.account.left_out if why == "near copies of test images")
    assert left_out > 3
    assert len(images.train) + len(images.test) == 300 + 60 - left_out
