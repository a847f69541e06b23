"""The probe that a report keeps beside its encoder: what it says of new images, and what it refuses."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from contrastive import Settings, UserError, load_encoder, load_images, pretrain, resolve
from contrastive.__main__ import main
from contrastive.data.images import make_images
from contrastive.evaluation import kept_probe
from contrastive.evaluation.judging import how_judged
from contrastive.evaluation.kept_probe import PROBE, keep_probe, load_probe
from contrastive.evaluation.probes import USUAL_L2, embed
from contrastive.settings import RunError
from contrastive.storage.tensors import read_tensors, write_tensors

SMOKE = Settings(preset="smoke", general="none", epochs=2, base_channels=4)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run on digits, how it is judged, and the probe that was kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRASTIVE_RUNS", str(tmp_path_factory.mktemp("runs")))
        images = load_images("digits")
        run = pretrain(SMOKE, progress=False)
        own = how_judged(images, run.settings)
        return run, own, keep_probe(run, images, own)


@pytest.fixture
def folder(fitted, tmp_path):
    """A copy of the run's encoder and probe."""
    (tmp_path / "run").mkdir()
    for name in ("encoder.safetensors", PROBE):
        shutil.copy(fitted[0].folder / name, tmp_path / "run" / name)
    return tmp_path / "run"


def changed(folder, **metadata):
    """Replace what a kept probe tells of itself."""
    kept, tensors = read_tensors(folder / PROBE)
    write_tensors(folder / PROBE, {**kept, **metadata}, tensors)


def by_hand(folder, pixels):
    """What the probe in a folder takes images for, in float64, from the files alone."""
    metadata, tensors = read_tensors(folder / PROBE)
    h = embed(load_encoder(folder), pixels).double().numpy()
    h = h / np.linalg.norm(h, axis=1, keepdims=True) * np.sqrt(h.shape[1])
    scores = (h @ tensors["weight"].double().numpy().T + tensors["bias"].double().numpy()) / metadata["temperature"]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return [metadata["classes"][i] for i in shares.argmax(1)], shares.max(1)


# --- Fitting and reading ------------------------------------------------------------------------------------------


def test_it_is_fitted_to_all_labels_of_training_images_and_is_right_of_others(fitted):
    run, own, kept = fitted
    assert kept.n_labels == 1437
    assert kept.classes == own.images.classes
    features = embed(load_encoder(run), own.images.test)
    said, certainty = kept.predict(features.numpy())
    right = np.mean([int(name) == label for name, label in zip(said, own.images.test_labels.tolist(), strict=True)])
    train, x = (
        normalize(h.double().numpy()) * h.shape[1] ** 0.5
        for h in (embed(load_encoder(run), own.images.train), features)
    )
    theirs = LogisticRegression(C=1 / (kept.probe.l2 * len(train)), tol=1e-6, max_iter=2000)
    expected = theirs.fit(train, own.images.train_labels.numpy()).score(x, own.images.test_labels.numpy())
    assert right == pytest.approx(expected, abs=0.02)
    assert right > 0.75
    assert certainty.mean() == pytest.approx(right, abs=0.08)  # the temperature makes them as sure as they are right
    assert 0.1 < certainty.min() <= certainty.max() <= 1


def test_what_it_says_is_what_its_file_gives_by_hand(fitted):
    run, own, kept = fitted
    read = load_probe(run)
    assert (read.classes, read.n_labels) == (kept.classes, kept.n_labels)
    features = embed(load_encoder(run), own.images.test).numpy()
    names, certainty = read.predict(features)
    expected = by_hand(run.folder, own.images.test)
    assert names == expected[0]
    np.testing.assert_allclose(certainty, expected[1], atol=1e-5)
    assert certainty.dtype == np.float32
    for source in (run.folder, run.folder / "encoder.safetensors"):
        assert load_probe(source).predict(features)[0] == names


def test_of_many_labels_it_takes_some(fitted, tmp_path, monkeypatch):
    run, own, _ = fitted
    shutil.copytree(run.folder, tmp_path / "run")
    monkeypatch.setattr(kept_probe, "MOST_LABELS", 100)
    kept = keep_probe(dataclasses.replace(run, folder=tmp_path / "run"), own.images, own)
    assert kept.n_labels == load_probe(tmp_path / "run").n_labels == 100


def test_few_cross_validated_labels_all_serve_it(fresh_runs):
    digits = load_images("digits")
    arrays = [
        digits.train[:120].numpy(),
        digits.train_labels[:120].numpy(),
        digits.test[:40].numpy(),
        np.zeros(40, int),
    ]
    images = make_images("few", arrays)
    train_labels = torch.where(torch.arange(120) % 3 == 0, images.train_labels, -1)
    none = {"test": images.test[:0], "test_labels": images.test_labels[:0]}
    images = dataclasses.replace(images, train_labels=train_labels, **none)
    settings, images = resolve(SMOKE.replace(epochs=1), images)
    run = pretrain(settings, progress=False, images=images)
    kept = keep_probe(run, images, how_judged(images, settings))
    assert kept.n_labels == 40
    assert (kept.probe.l2, kept.probe.temperature) == (USUAL_L2, 1.0)  # too few to choose either with
    names, _ = load_probe(run).predict(embed(load_encoder(run), images.train[images.labelled]).numpy())
    truth = images.train_labels[images.labelled].tolist()
    assert np.mean([int(name) == label for name, label in zip(names, truth, strict=True)]) > 0.5


def tensors_changed(folder, change):
    """The probe with other weights, and a right checksum."""
    metadata, tensors = read_tensors(folder / PROBE)
    write_tensors(folder / PROBE, metadata, {name: change(x).contiguous() for name, x in tensors.items()})


def test_without_a_probe_there_is_none(folder):
    (folder / PROBE).unlink()
    assert load_probe(folder) is None


def test_one_of_another_encoder_is_refused(folder):
    changed(folder, identity="another")
    with pytest.raises(UserError, match=r"is of another encoder\. Delete it;") as problem:
        load_probe(folder)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: changed(folder, classes=["one", "two"]),
        lambda folder: changed(folder, classes=5),
        lambda folder: changed(folder, temperature="hot"),
        lambda folder: changed(folder, labels=None),
        lambda folder: (folder / PROBE).write_bytes((folder / PROBE).read_bytes()[:-9]),
        lambda folder: (folder / PROBE).write_bytes(b""),
        lambda folder: write_tensors(folder / PROBE, read_tensors(folder / PROBE)[0], {"bias": torch.zeros(10)}),
        lambda folder: changed(folder, temperature=-1),
        lambda folder: tensors_changed(folder, lambda x: x.half()),
        lambda folder: tensors_changed(folder, lambda x: x * torch.nan),
        lambda folder: tensors_changed(folder, lambda x: x.unsqueeze(-1)),
    ],
    ids=["classes", "no classes", "temperature", "labels", "cut", "empty", "tensors", "negative", "type", "NaN",
         "shape"],
)  # fmt: skip
def test_a_damaged_one_is_named_in_one_line(folder, damage, tmp_path, capsys):
    damage(folder)
    with pytest.raises(UserError, match=r"probe.safetensors .*Delete it; a report on the same run") as problem:
        load_probe(folder)
    assert "\n" not in str(problem.value)
    Image.new("L", (28, 28)).save(tmp_path / "one.png")
    code = main(["embed", str(tmp_path / "one.png"), "--run", str(folder), "--out", str(tmp_path / "x.csv")])
    assert code == 2
    assert PROBE in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_one_that_cannot_be_written_leaves_the_one_before(fitted, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    run, own, _ = fitted
    before = (run.folder / PROBE).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="is full"):
        keep_probe(run, own.images, own)
    assert (run.folder / PROBE).read_bytes() == before


# --- The command --------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Ten digits as files."""
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(load_images("digits").test[:10, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def columns(path):
    """Names, predictions and certainties of a table, and how many features it has."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            assert set(arrays) == {"files", "features", "run", "prediction", "certainty"}
            return *(arrays[name].tolist() for name in ("files", "prediction", "certainty")), arrays["features"].shape[
                1
            ]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        parts = list(zip(*rows, strict=True))
        values = [list(parts[0]), list(parts[1]), [float(x) for x in parts[2]]]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        read = parquet.read_table(path)
        header, values = read.column_names, [read.column(i).to_pylist() for i in range(3)]
    assert header == ["file", "prediction", "certainty", *(f"f{i}" for i in range(len(header) - 3))]
    return *values, len(header) - 3


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_a_table_of_features_says_what_images_are_taken_for(folder, pictures, tmp_path, capsys, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"x{ending}"
    assert main(["embed", str(pictures), "--run", str(folder), "--out", str(out)]) == 0
    assert "with predictions of the linear probe on 1,437 labels that a report kept" in capsys.readouterr().err
    names, prediction, certainty, n_features = columns(out)
    assert names == [f"{i}.png" for i in range(10)]
    assert n_features == load_encoder(folder).out_dim
    expected = by_hand(folder, load_images("digits").test[:10])
    assert prediction == expected[0]
    assert certainty == pytest.approx(expected[1].tolist(), abs=2e-4)


def test_names_of_classes_are_quoted_in_a_table(folder, pictures, tmp_path):
    classes = [f'"{i}", or so' for i in range(10)]
    changed(folder, classes=classes)
    assert main(["embed", str(pictures), "--run", str(folder), "--out", str(tmp_path / "x.csv")]) == 0
    assert set(columns(tmp_path / "x.csv")[1]) <= set(classes)


def test_without_a_probe_a_table_has_features_alone(folder, pictures, tmp_path, capsys):
    (folder / PROBE).unlink()
    assert main(["embed", str(pictures), "--run", str(folder), "--out", str(tmp_path / "x.csv")]) == 0
    assert "no report kept a probe beside this encoder" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_text().startswith("file,f0,f1,")


def test_a_probe_is_kept_as_json_and_tensors_alone(fitted):
    metadata, tensors = read_tensors(fitted[0].folder / PROBE)
    assert json.loads(json.dumps(metadata)) == metadata
    assert set(metadata) == {"identity", "classes", "labels", "temperature", "l2"}
    assert {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} == {
        "weight": ((10, load_encoder(fitted[0]).out_dim), torch.float32), "bias": ((10,), torch.float32),
    }  # fmt: skip
