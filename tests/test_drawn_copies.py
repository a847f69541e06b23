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
@pytest.mark.parametrize("labelled", [0, 60, 500, 600])
def test_copies_are_on_one_side_of_a_drawn_split(seed, patients, labelled):
    rng = np.random.default_rng(seed)
    copies = rng.integers(0, 400, 600)  # most images have one
    labels = [None if i >= labelled else "ab"[i % 2] for i in range(600)]
    groups = (copies // 3).astype(str).tolist() if patients else None  # copies are of one patient
    kept, test, m = drawn(labels, groups, seed, copies=copies)
    train = sorted({*kept} - {*test})
    assert test
    assert not {copies[i] for i in test} & {copies[i] for i in train}
    if patients:
        assert not {groups[i] for i in test} & {groups[i] for i in train}
    gone = 600 - len(kept)
    assert gone == sum(n for _, n in m.left_out.items())
    if labelled in (0, 60):  # images to look at: of these, no label and no image is lost
        assert all(labels[i] is None for i in test)
        assert not gone
    else:
        assert all(labels[i] is not None for i in test)
        assert 0.12 < len(test) / labelled < 0.28
        assert (gone > 0) == (labelled == 500)  # copies without a label, or of such patients


@pytest.mark.parametrize("seed", range(12))
def test_a_class_of_copies_is_never_tested_on_without_being_trained_on(seed):
    _, test, m = drawn(["a"] * 500 + ["rare"] * 6, seed=seed, copies=[*range(500), *[999] * 6])
    assert len(test) == 100
    assert not {*test} & {*range(500, 506)}
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


@pytest.mark.parametrize("seed", range(12))
def test_a_class_of_one_group_is_never_tested_on_without_being_trained_on(seed):
    rare = [f"r{i}" for i in range(3) for _ in range(2)]  # three classes, each of two images of one patient
    kept, test, m = drawn(["a"] * 250 + ["b"] * 250 + rare, [*(f"p{i // 4}" for i in range(500)), *rare], seed)
    assert len(kept) == 506
    assert 85 < len(test) < 115
    assert not {*test} & {*range(500, 506)}
    assert any("Classes r0, r1, r2 have no test images" in remark for remark in m.remarks)


def test_given_test_images_are_not_searched_for_copies():
    def never(places):
        raise AssertionError

    m = completed(manifest(list("abab"), splits=[TRAIN, TRAIN, TEST, TEST]), 0, "here", never)
    assert m.splits == [TRAIN, TRAIN, TEST, TEST]


def test_of_test_images_that_are_drawn_no_near_copy_is_trained_on(tmp_path):
    photographs = textured(480).permute(0, 2, 3, 1).numpy()
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
    assert len(images.train) + len(images.test) == 480 + 60 - left_out
    assert len(images.test) == 108


def test_near_copies_of_few_labelled_images_stay_where_none_is_tested_on(tmp_path):
    photographs = textured(20).permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(photographs):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        for name in (f"{i:02}.png", f"{i:02}_again.jpg"):
            Image.fromarray(image).save(tmp_path / "ab"[i % 2] / name, quality=80)
    for drop in (False, True):
        images = load_images(tmp_path, drop_copies=drop)
        assert (images.n_labels, len(images.train), len(images.test)) == (40, 40, 0)
        assert images.account.left_out == ()


def test_no_label_is_lost_to_a_near_copy_that_is_only_looked_at(tmp_path):
    for i, image in enumerate(textured(100).permute(0, 2, 3, 1).numpy()):
        folder = tmp_path / ("ab"[i % 2] if i < 40 else "unlabeled")
        for path, quality in ((folder / f"{i}.png", 0), (tmp_path / "unlabeled" / f"{i}_again.jpg", 80)):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path, quality=quality)
    images = load_images(tmp_path)
    assert (images.n_labels, len(images.train), len(images.test)) == (40, 168, 32)
    assert images.account.left_out == ()
    assert len(across_splits(images)[0])
