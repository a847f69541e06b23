"""Features of one's own arrays and files: as the network gives them for images prepared as it was trained."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import Settings, UserError, load_encoder, load_images, pretrain
from contrastive.data.pictures import FilePictures, Reading
from contrastive.data.preparation import Preparation
from contrastive.data.trees import Folder
from contrastive.encoders import Encoder, build_encoder, transform
from contrastive.storage.tensors import read_tensors, write_tensors
from contrastive.training.runs import ENCODER

TINY = Settings(preset="smoke", epochs=1, base_channels=2, n_images=128, batch_size=64)
SHAPES = [(1, 20, 27), (3, 20, 27)]


def built(shape=(1, 20, 27), **parameters):
    """A new encoder in eval mode, whose BatchNorm changes something."""
    torch.manual_seed(0)
    encoder = build_encoder(Settings(base_channels=2).encoder, shape, (0.3,) * shape[0], (0.2,) * shape[0]).eval()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return encoder


def drawn(n, shape):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


def reference(encoder, images):
    """Features of uint8 N x C x H x W by the plain formula, in double precision."""
    body = copy.deepcopy(encoder.body).eval().double()
    with torch.no_grad():
        return body((torch.from_numpy(images.copy()).double() / 255 - 0.3) / 0.2).numpy()


def close(found, expected):
    assert (type(found), found.dtype, found.shape) == (np.ndarray, np.float32, expected.shape)
    assert expected.std() > 0.01  # that there is something to compare
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- Arrays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_and_tensors_in_every_layout(shape):
    encoder, images = built(shape), drawn(5, shape)
    expected = reference(encoder, images)
    last = images.transpose(0, 2, 3, 1)
    layouts = [images, last, np.ascontiguousarray(last)] + ([images[:, 0]] if shape[0] == 1 else [])
    for layout in layouts:
        close(encoder.transform(layout), expected)
        close(encoder.transform(torch.from_numpy(layout.copy())), expected)
    close(encoder.transform(images[:1]), expected[:1])


def test_arrays_that_torch_does_not_take_as_they_are(tmp_path):
    encoder, images = built(), drawn(5, SHAPES[0])
    expected = reference(encoder, images)
    read_only = images.copy()
    read_only.setflags(write=False)
    np.save(tmp_path / "x.npy", images)
    close(encoder.transform(read_only), expected)
    close(encoder.transform(np.load(tmp_path / "x.npy", mmap_mode="r")), expected)
    close(encoder.transform(images[::-1, :, ::-1][::-1, :, ::-1]), expected)
    close(encoder.transform(images[:, :, :, ::-1]), reference(encoder, images[:, :, :, ::-1]))


def test_batches_change_nothing(monkeypatch):
    encoder, images = built(), drawn(11, SHAPES[0])
    seen = []
    encoder.register_forward_hook(lambda module, given, features: seen.append(len(features)))
    for most, pixels, batches in ((512, 2**22, [11]), (4, 2**22, [4, 4, 3]), (512, 3 * 20 * 27, [3, 3, 3, 2])):
        monkeypatch.setattr(transform, "MOST", most)
        monkeypatch.setattr(transform, "PIXELS", pixels)
        close(encoder.transform(images), reference(encoder, images))
        assert seen == batches
        seen.clear()


def test_it_is_computed_in_eval_mode_and_leaves_the_modes_as_they_were():
    encoder, images = built(), drawn(5, SHAPES[0])
    expected = reference(encoder, images)
    encoder.train()
    encoder.body[2].eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = encoder.transform(images)
    close(features, expected)
    assert encoder.training
    assert encoder.body[0].training
    assert not encoder.body[2].training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


GREY = np.zeros((2, 1, 20, 27), np.uint8)


@pytest.mark.parametrize(
    ("shape", "images", "said"),
    [
        (SHAPES[0], GREY.astype(np.float32), r"are float32: uint8 from 0 to 255 is needed, as by \(255"),
        (SHAPES[0], torch.zeros(2, 1, 20, 27), "are float32: uint8 from 0 to 255 is needed"),
        (SHAPES[0], GREY.astype(np.int64), "are int64: uint8 from 0 to 255 is needed; the encoder normalises"),
        (SHAPES[0], GREY.astype(bool), "are bool: uint8"),
        (SHAPES[0], np.zeros((2, 3, 20, 27), np.uint8), "2 x 3 x 20 x 27: 3 channels rather than 1"),
        (SHAPES[0], np.zeros((2, 20, 27, 3), np.uint8), "2 x 20 x 27 x 3: 3 channels rather than 1"),
        (SHAPES[1], GREY, "N x 3 x 20 x 27 or N x 20 x 27 x 3; .* 2 x 1 x 20 x 27: 1 channels rather than 3"),
        (SHAPES[1], GREY[:, 0], "one channel rather than 3"),
        (SHAPES[1], np.zeros((3, 20, 27), np.uint8), r"a single image.* images\[None\]"),
        (SHAPES[0], GREY[0, 0], r"20 x 27: a single image.* images\[None\]"),
        (SHAPES[0], np.zeros((2, 1, 28, 28), np.uint8), r"28x28 pixels rather than 20x27\. .* names of files"),
        (SHAPES[0], np.zeros((2, 28, 28), np.uint8), "28x28 pixels rather than 20x27"),
        (SHAPES[1], np.zeros((2, 32, 30, 3), np.uint8), "32x30 pixels rather than 20x27"),
        (SHAPES[0], np.zeros((2, 1, 27, 20), np.uint8), "27x20 pixels rather than 20x27"),
        (SHAPES[0], np.zeros((2, 1, 1, 20, 27), np.uint8), "5 axes rather than 3 or 4"),
        (SHAPES[0], np.zeros((), np.uint8), "a single number: 0 axes rather than 3 or 4"),
        (SHAPES[0], GREY[:0], "there are no images: the array is 0 x 1 x 20 x 27"),
        (SHAPES[0], [], "there are no images: the list of files is empty"),
        (SHAPES[0], [GREY[0], GREY[1]], "an array, a tensor or names of files.* numpy.stack"),
        (SHAPES[0], 7, "an array, a tensor or names of files"),
        (SHAPES[0], None, "an array, a tensor or names of files"),
    ],
)
def test_what_is_not_as_the_encoder_needs_it_is_one_line(shape, images, said):
    with pytest.raises(UserError, match=said) as mistake:
        built(shape).transform(images)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(2, 1, 20, 27), r"torch.float32, \(2, 1, 20, 27\)"),
        (torch.zeros(2, 20, 27, dtype=torch.uint8), r"torch.uint8, \(2, 20, 27\)"),
        (torch.zeros(2, 3, 20, 27, dtype=torch.uint8), "have 3 channels: the encoder takes 1"),
        (GREY, "this is ndarray"),
    ],
)
def test_prepare_refuses_what_it_would_get_wrong(images, said):
    with pytest.raises(UserError, match=said):
        built().prepare(images)


def test_prepare_takes_views_of_another_size():
    assert built().prepare(torch.zeros(2, 1, 24, 24, dtype=torch.uint8)).shape == (2, 1, 24, 24)


def test_an_encoder_by_hand_says_that_it_knows_no_size():
    with pytest.raises(UserError, match="does not know its images' size"):
        Encoder(torch.nn.Flatten(), 540, (0.0,), (1.0,)).transform(GREY)


# --- Files --------------------------------------------------------------------------------------------------------


def saved(folder, images, ending=".png"):
    """Images N x C x H x W as files."""
    for i, image in enumerate(images):
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(picture).save(folder / f"{i}{ending}")
    return [folder / f"{i}{ending}" for i in range(len(images))]


@pytest.mark.parametrize("shape", SHAPES)
def test_files_give_the_features_of_their_pixels(tmp_path, shape, monkeypatch):
    monkeypatch.setattr(transform, "MOST", 2)
    encoder, images = built(shape), drawn(5, shape)
    paths, expected = saved(tmp_path, images), reference(encoder, images)
    for names in (paths, list(map(str, paths)), tuple(paths), np.array(list(map(str, paths))), iter(paths)):
        close(encoder.transform(names), expected)
    close(encoder.transform(paths[2]), expected[2:3])
    close(encoder.transform(str(paths[2])), expected[2:3])


def test_files_of_another_shape_are_prepared_as_those_of_the_training_were(tmp_path):
    tall, encoder = drawn(1, (1, 40, 27)), built()
    path = saved(tmp_path, tall)
    middle = tall[:, :, 10:30]
    close(encoder.transform(path), reference(encoder, middle))
    encoder.preparation = Preparation(20, 27, 1, fit="stretch")
    stretched = np.asarray(Image.fromarray(tall[0, 0]).resize((27, 20), Image.Resampling.BICUBIC))
    close(encoder.transform(path), reference(encoder, stretched[None, None]))


def test_colour_and_grey_files_become_what_the_encoder_takes(tmp_path):
    colour, grey = drawn(2, SHAPES[1]), drawn(2, SHAPES[0])
    for_grey, for_colour = built(SHAPES[0]), built(SHAPES[1])
    luma = np.stack([np.asarray(Image.fromarray(x.transpose(1, 2, 0)).convert("L")) for x in colour])[:, None]
    close(for_grey.transform(saved(tmp_path, colour)), reference(for_grey, luma))
    close(for_colour.transform(saved(tmp_path, grey)), reference(for_colour, np.repeat(grey, 3, axis=1)))


def test_a_large_jpeg_gives_the_pixels_that_a_training_would_see(tmp_path):
    x = np.linspace(0, 255, 900)
    ramp = ((x[:, None] + x[None] * 2) % 256).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "large.jpg")
    encoder = built((1, 64, 64))
    seen = FilePictures(Folder(tmp_path), ["large.jpg"], Reading()).picture(0)
    assert seen.pixels.shape[0] < 900  # decoded at a part of its size, which changes pixels
    close(encoder.transform(tmp_path / "large.jpg"), reference(encoder, encoder.preparation(seen)[None]))


def test_a_transparent_file_is_laid_over_the_background(tmp_path):
    encoder = built()
    Image.fromarray(np.zeros((20, 27, 4), np.uint8)).save(tmp_path / "clear.png")
    features = []
    for name, level in (("white", 255), ("black", 0)):
        encoder.preparation = Preparation(20, 27, 1, background=name)
        features.append(encoder.transform(tmp_path / "clear.png"))
        close(features[-1], reference(encoder, np.full((1, *SHAPES[0]), level, np.uint8)))
    assert abs(features[0] - features[1]).max() > 0.1


def test_all_files_that_cannot_be_used_are_counted_and_ten_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(transform, "MOST", 4)
    encoder, paths = built(), saved(tmp_path, drawn(20, SHAPES[0]))
    for path in paths[5:16]:
        path.write_bytes(path.read_bytes()[:60])
    paths[18] = tmp_path / "missing.png"
    (tmp_path / "folder.png").mkdir()
    paths[19] = tmp_path / "folder.png"
    with pytest.raises(UserError) as mistake:
        encoder.transform(paths)
    line = str(mistake.value)
    assert line.startswith("13 of 20 images cannot be used: ")
    assert line.endswith(", and 3 more.")
    assert "\n" not in line
    assert [str(path) in line for path in paths[5:15]] == [True] * 10
    assert not any(str(path) in line for path in paths[:5] + paths[15:])
    with pytest.raises(UserError, match=r"1 of 1 images cannot be used: .*missing\.png \(No such file"):
        encoder.transform(paths[18])


def test_no_more_is_computed_after_a_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(transform, "MOST", 2)
    encoder, paths = built(), saved(tmp_path, drawn(8, SHAPES[0]))
    paths[2].write_bytes(b"")
    seen = []
    encoder.register_forward_hook(lambda module, given, features: seen.append(len(features)))
    with pytest.raises(UserError, match="1 of 8 images"):
        encoder.transform(paths)
    assert seen == [2]


# --- What a run keeps of it ---------------------------------------------------------------------------------------


def test_a_run_tells_how_its_images_were_prepared():
    run = pretrain(TINY, progress=False)
    metadata, _ = read_tensors(run.folder / ENCODER)
    assert metadata["format"] == 2
    assert metadata["preparation"]["height"] == 28
    encoder, images = load_encoder(run), load_images("digits").test[:9]
    assert encoder.preparation == Preparation.from_json(metadata["preparation"])
    assert encoder.run_identity == run.settings.identity
    with torch.no_grad():
        expected = encoder(encoder.prepare(images)).numpy()
    np.testing.assert_allclose(encoder.transform(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [None, 24, 80])
def test_the_files_of_a_training_give_the_features_of_what_it_saw(tmp_path, size):
    draws, folder = np.random.default_rng(0), tmp_path / "data"
    folder.mkdir()
    for i in range(70):
        height, width = draws.integers(30, 500, 2)
        small = draws.integers(0, 256, (6, 7, 3 if i % 2 else 4), np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:02}{'.jpg' if i % 2 else '.png'}", **({"quality": 60} if i % 2 else {}))
    options = {"dataset": str(folder), "image_size": size, "fit": "pad", "background": "black"}
    settings = TINY.replace(n_images=32, batch_size=16, view_size=None, **options)
    run = pretrain(settings, progress=False)
    encoder, images = (
        load_encoder(run),
        load_images(str(folder), **{k: v for k, v in options.items() if k != "dataset"}),
    )
    assert encoder.preparation == images.preparation
    assert (encoder.preparation.fit, encoder.preparation.background) == ("pad", "black")
    expected = encoder.transform(images.train)
    assert len(expected) >= 50
    found = encoder.transform([folder / name for name in images.train_names])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_what_was_kept_is_what_is_done(tmp_path, fit):
    run = pretrain(TINY, progress=False)
    metadata, tensors = read_tensors(run.folder / ENCODER)
    kept = Preparation(28, 28, 1, fit=fit, background="black", window=(10, 1000))
    write_tensors(tmp_path / ENCODER, {**metadata, "preparation": kept.as_json()}, tensors)
    encoder, wide = load_encoder(tmp_path), drawn(1, (1, 14, 28))[0, 0]
    assert encoder.preparation == kept
    Image.fromarray(wide).save(tmp_path / "wide.png")
    padded = np.zeros((28, 28), np.uint8)
    padded[7:21] = wide
    enlarged = np.asarray(Image.fromarray(wide).resize((56, 28), Image.Resampling.BICUBIC, box=(0, 0, 28, 14)))
    expected = encoder.transform((padded if fit == "pad" else enlarged[:, 14:42])[None])
    np.testing.assert_allclose(encoder.transform(tmp_path / "wide.png"), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01
