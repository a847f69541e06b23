"""Encoders for other programs: ONNX graphs against the network in double precision, and files of weights."""

import copy
import itertools
import json
import re
import sys
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from docs.markdown import ROOT
from PIL import Image

from contrastive import Settings, UserError, __version__, load_encoder, pretrain
from contrastive.__main__ import main
from contrastive.data.preparation import Preparation
from contrastive.encoders import build_encoder
from contrastive.encoders.squares import SquareEncoder
from contrastive.settings import ENCODERS, RunError
from contrastive.storage.files import DamagedError
from contrastive.storage.tensors import hash_tensors, read_tensors, write_tensors
from contrastive.training.export import check_graph, export_encoder, onnx_content
from contrastive.training.runs import ENCODER

TINY = Settings(preset="smoke", epochs=1, base_channels=2, n_images=128, batch_size=64)
PUBLISHED = sorted((ROOT / "reports" / "published").glob("*/encoders/*"))
SHAPES = [(1, 28, 28), (3, 29, 38), (3, 24, 17), (1, 64, 40)]


OTHERS = [  # whose choices change few operations
    ("resnet34", {"stem": "pooled"}, (1, 28, 28)),
    ("resnet50", {"stem": "imagenet"}, (3, 29, 38)),
    ("resnet9", {"base_channels": 8}, (3, 24, 17)),
    ("vit_tiny", {"depth": 2, "positions": "sincos", "pool": "avg"}, (3, 29, 38)),
    ("vit_small", {"depth": 1, "positions": "learnable", "pool": "cls"}, (1, 28, 28)),
    ("efficientnet_lite0", {"input_size": 40}, (1, 28, 28)),
    ("torchvision:resnet18", {}, (3, 24, 17)),
    ("timm:test_resnet", {"input_size": 20}, (3, 29, 38)),
    ("timm:test_vit", {"input_size": 32}, (1, 28, 28)),
]


def variants():
    """Each value of each choice of two encoders, with one kind of images or another; and one of each of the others."""
    for name in ("cnn", "resnet18"):
        fields = ENCODERS[name].Parameters.model_fields.items()
        choices = [(f, v) for f, x in fields if get_origin(x.annotation) is Literal for v in get_args(x.annotation)]
        shapes = itertools.cycle(SHAPES if name == "cnn" else SHAPES[1:])
        for (field, value), shape in zip(choices * (2 if name == "cnn" else 1), shapes, strict=False):
            small = {"base_channels": 8} if name == "cnn" else {}
            yield pytest.param(name, {field: value, **small}, shape, id=f"{name}-{field}-{value}-{shape}")
    for name, parameters, shape in OTHERS:
        yield pytest.param(name, parameters, shape, id=f"{name}-{shape}")


def random_encoder(shape, **parameters):
    """An encoder whose every part changes something, in eval mode."""
    torch.manual_seed(0)
    channels = shape[0]
    encoder = build_encoder(
        Settings(**parameters).encoder, shape, (0.2, 0.5, 0.4)[:channels], (0.2, 0.3, 0.1)[:channels]
    )
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0, 0.3)
    return encoder.eval().requires_grad_(False)


def computed(content, images):
    """What onnxruntime computes by a file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [(x.name, x.type) for x in session.get_inputs()] == [("images", "tensor(uint8)")]
    assert [(x.name, x.type) for x in session.get_outputs()] == [("features", "tensor(float)")]
    return session.run(None, {"images": images})[0]


def in_double(encoder, images):
    """Features by the plain formula, in double precision, where that does not take a minute."""
    kind = torch.float32 if isinstance(encoder, SquareEncoder) else torch.float64
    mean, std = (x.to(kind).view(1, -1, 1, 1) for x in (encoder.mean, encoder.std))
    x = (torch.from_numpy(images).to(kind) / 255 - mean) / std
    if isinstance(encoder, SquareEncoder):
        size = (encoder.size,) * 2
        x = torch.nn.functional.interpolate(x, size, mode="bicubic", antialias=max(size) < max(images.shape[2:]))
    return copy.deepcopy(encoder.body).to(kind)(x).numpy()


def drawn(n, shape):
    return np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture
def need_onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")


def test_every_encoder_of_this_package_is_tried():
    tried = {re.sub(":.*", ":NAME", variant.values[0]) for variant in variants()}
    assert tried == {name for name in ENCODERS if ENCODERS[name].__module__.startswith("contrastive.")}


@pytest.mark.usefixtures("need_onnx")
@pytest.mark.parametrize(("name", "parameters", "shape"), list(variants()))
def test_a_graph_gives_the_features_of_its_encoder_for_any_number_of_images(name, parameters, shape):
    encoder = random_encoder(shape, encoder=name, **parameters)
    content = onnx_content(encoder)
    for n in (1, 3):
        images = drawn(n, shape)
        found, expected = computed(content, images), in_double(encoder, images)
        assert (found.dtype, found.shape) == (np.float32, (n, encoder.out_dim))
        scale = max(1.0, float(abs(expected).max()))
        assert abs(found - expected).max() / scale < 1e-4
        assert expected.std() > 0.01
        np.testing.assert_allclose(found, encoder.transform(images), rtol=1e-4, atol=1e-4)
    assert str(ROOT).encode() not in content  # the exporter notes where each node came from
    assert b"site-packages" not in content


@pytest.mark.usefixtures("need_onnx")
def test_a_graph_tells_of_the_run_and_of_how_pictures_are_prepared(tmp_path, capfd):
    run = pretrain(TINY, progress=False)
    metadata, tensors = read_tensors(run.folder / ENCODER)
    kept = Preparation(28, 28, 1, fit="pad", background="black", window=(0, 4095))
    write_tensors(tmp_path / ENCODER, {**metadata, "preparation": kept.as_json()}, tensors)
    capfd.readouterr()
    out = tmp_path / "new folder" / "Encoder.ONNX"
    assert main(["export", str(tmp_path), "--out", str(out)]) == 0
    shown = capfd.readouterr()
    assert shown.out == f"{out}\n"
    assert shown.err.count("\n") == 1
    assert kept.in_words() in shown.err
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert Preparation.from_json(json.loads(told["preparation"])) == kept
    assert told["contrastive"] == __version__
    assert told["run"] == run.settings.identity
    images = drawn(4, (1, 28, 28))
    expected = load_encoder(run).transform(images)
    np.testing.assert_allclose(computed(out.read_bytes(), images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("need_onnx")
def test_the_same_encoder_gives_the_same_bytes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_encoder(PUBLISHED[0], tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.usefixtures("need_onnx")
def test_a_graph_that_gives_other_features_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    encoder = random_encoder((1, 28, 28), base_channels=2)
    content = onnx_content(encoder)
    check_graph(content, encoder)
    with torch.no_grad():
        encoder.body[0].weight[0, 0, 1, 1] += 0.01
    with pytest.raises(RunError, match="other features than the encoder"):
        check_graph(content, encoder)
    monkeypatch.setattr("contrastive.training.export.onnx_content", lambda encoder: content)
    with pytest.raises(RunError, match="other features than the encoder"):
        export_encoder(pretrain(TINY, progress=False), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("need_onnx")
def test_an_encoder_that_cannot_be_exported_is_one_line():
    encoder = random_encoder((1, 28, 28), base_channels=2)

    class Branches(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) if x.mean() > 0 else -x.flatten(1)

    encoder.body = Branches()
    with pytest.raises(RunError, match="cannot be exported to ONNX: ") as failure:
        onnx_content(encoder)
    assert "\n" not in str(failure.value)


@pytest.mark.usefixtures("need_onnx")
def test_without_onnxruntime_it_says_that_nothing_was_compared(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(PUBLISHED[0]), "--out", str(tmp_path / "x.onnx")]) == 0
    assert "onnxruntime is not installed, so the exported graph was not compared" in capfd.readouterr().err
    assert (tmp_path / "x.onnx").is_file()


# --- Weights ------------------------------------------------------------------------------------------------------


def test_weights_are_what_load_encoder_reads(tmp_path, capsys):
    run = pretrain(TINY, progress=False)
    out = tmp_path / "mine.safetensors"
    assert main(["export", str(run.folder), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert load_encoder(run).preparation.in_words() in shown.err
    assert out.read_bytes() == (run.folder / ENCODER).read_bytes()


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_encoders_take_images_of_their_size(folder, tmp_path):
    metadata, _ = read_tensors(folder / ENCODER)
    channels, height, width = metadata["shape"]
    encoder, images = load_encoder(folder), drawn(3, metadata["shape"])
    if "preparation" not in metadata:
        assert encoder.preparation == Preparation(height, width, channels)
    with torch.no_grad():
        expected = encoder(encoder.prepare(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(encoder.transform(images), expected, rtol=1e-5, atol=1e-5)
    for i, image in enumerate(images):
        Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    found = encoder.transform([tmp_path / f"{i}.png" for i in range(3)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_there_are_published_encoders():
    assert PUBLISHED


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_encoders_are_exported_with_their_preparation(folder, tmp_path):
    out, encoder = tmp_path / "mine.safetensors", load_encoder(folder)
    export_encoder(folder / ENCODER, out)
    again = load_encoder(out)
    assert hash_tensors(again.state_dict()) == hash_tensors(encoder.state_dict())
    assert (again.preparation, again.run_identity) == (encoder.preparation, encoder.run_identity)
    metadata, _ = read_tensors(out)
    assert Preparation.from_json(metadata["preparation"]) == encoder.preparation


@pytest.mark.parametrize(
    "wrong",
    [
        "crop", None, {}, {"height": 28}, {"fit": "other"}, {"background": "red"}, {"height": 27}, {"channels": 3},
        {"window": 3}, {"window": ["a", "b"]}, {"more": 1},
    ],
)  # fmt: skip
def test_a_preparation_that_means_nothing_is_a_damaged_file(tmp_path, wrong):
    metadata, tensors = read_tensors(pretrain(TINY, progress=False).folder / ENCODER)
    if isinstance(wrong, dict) and wrong and wrong != {"height": 28}:
        wrong = {**metadata["preparation"], **wrong}
    write_tensors(tmp_path / ENCODER, {**metadata, "preparation": wrong}, tensors)
    with pytest.raises(DamagedError, match="does not hold the encoder"):
        load_encoder(tmp_path)


# --- Requests that cannot be served -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x.pt", "has to end in .onnx or .safetensors"),
        ("x", "has to end in .onnx or .safetensors"),
        ("/dev/null/x.onnx", "cannot write to /dev/null"),
        (".", "has to end in"),
        ("folder.onnx", "is a folder: name a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(tmp_path, monkeypatch, capsys, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", "nowhere", "--out", out]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_a_run_that_is_not_there_is_one_line_and_leaves_no_folder(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "new" / "x.safetensors")]) == 2
    assert "there is no encoder at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_line_that_says_how_to_have_it(tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "onnxscript":
        pytest.importorskip("onnx")
    assert main(["export", str(PUBLISHED[0]), "--out", str(tmp_path / "x.onnx")]) == 2
    shown = capsys.readouterr()
    assert f"needs {package}, which is not installed: pip install 'contrastive[export]'" in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_a_runs_own_encoder_is_not_written_over(tmp_path):
    run = pretrain(TINY, progress=False)
    with pytest.raises(UserError, match="is the run's own encoder"):
        export_encoder(run, run.folder / ENCODER)
