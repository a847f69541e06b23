"""Features of a folder of images as a table: what is in it, and that nothing is begun that cannot be finished."""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from docs.markdown import ROOT
from PIL import Image

from contrastive import UserError, load_encoder
from contrastive.__main__ import main
from contrastive.data.decode import IMAGE_ENDINGS, decode
from contrastive.encoders import Encoder, transform
from contrastive.settings import RunError
from contrastive.training.embed import embed_pictures

RUN = sorted((ROOT / "reports" / "published").glob("*/encoders/*"))[0]  # of 28x28 grey images
NAMES = ["a.png", "sub/B, \"2\".jpg", "sub/deep/ä 猫.png", "z.bmp"]  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(RUN)


@pytest.fixture
def folder(tmp_path):
    """A folder of images of several sizes and kinds, and of something else."""
    draws, root = np.random.default_rng(0), tmp_path / "images"
    for name, shape in zip(NAMES, [(28, 28), (40, 28, 3), (28, 50), (20, 20)], strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, shape, np.uint8)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


class Plain:
    """The pictures below a folder, found and read in the plainest way."""

    def __init__(self, root):
        paths = sorted(path for path in Path(root).rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
        self.paths = [path for path in paths if path.is_file()]
        self.names = [path.relative_to(root).as_posix() for path in self.paths]

    def picture(self, i):
        return decode(self.paths[i].read_bytes())


def never(*args):
    raise AssertionError("work was begun")


def table(path):
    """Names and features of a table, and the run where it tells of it."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            assert set(arrays) == {"files", "features", "run"}
            return list(arrays["files"]), arrays["features"], str(arrays["run"])
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        names, run = [row[0] for row in rows], None
        features = np.array([[float(x) for x in row[1:]] for row in rows], np.float32)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        read = parquet.read_table(path)
        header, run = read.column_names, read.schema.metadata[b"run"].decode()
        names = read["file"].to_pylist()
        features = np.stack([read[name].to_numpy() for name in header[1:]], axis=1)
    assert header == ["file", *(f"f{i}" for i in range(features.shape[1]))]
    return names, features, run


@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet"])
def test_a_table_has_a_row_for_each_image(encoder, folder, tmp_path, ending, monkeypatch, capfd):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(transform, "MOST", 3)
    out = tmp_path / "new" / f"features{ending}"
    embed_pictures(encoder, Plain(folder), out)
    names, features, run = table(out)
    assert names == NAMES
    assert (features.dtype, features.shape) == (np.float32, (4, encoder.out_dim))
    for name, row in zip(names, features, strict=True):
        np.testing.assert_allclose(row, encoder.transform(folder / name)[0], rtol=1e-4, atol=1e-5)
    assert features.std() > 0.1
    assert run in (None, encoder.run_identity)
    assert (run is None) == (ending == ".csv")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert capfd.readouterr() == ("", "")  # a bar is for terminals


def test_csv_loses_nothing(encoder, folder, tmp_path):
    features = []
    for ending in (".npz", ".csv"):
        embed_pictures(encoder, Plain(folder), tmp_path / f"x{ending}")
        features.append(table(tmp_path / f"x{ending}")[1])
    np.testing.assert_array_equal(*features)


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet"])
def test_names_that_are_no_text_are_written_as_escapes(encoder, folder, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    (folder / "a.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    embed_pictures(encoder, Plain(folder), tmp_path / f"x{ending}")
    assert r"caf\udce9.png" in table(tmp_path / f"x{ending}")[0]


def test_damaged_images_are_named_and_nothing_is_written(encoder, folder, tmp_path):
    out = tmp_path / "x.npz"
    out.write_bytes(b"before")
    (folder / "a.png").write_bytes(b"")
    (folder / "z.bmp").write_bytes((folder / "z.bmp").read_bytes()[:80])
    with pytest.raises(UserError, match=r"2 of 4 images cannot be used: a\.png \(.*, z\.bmp \(") as mistake:
        embed_pictures(encoder, Plain(folder), out)
    assert "\n" not in str(mistake.value)
    assert out.read_bytes() == b"before"


def test_damaged_images_can_be_left_out(encoder, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transform, "MOST", 2)
    (folder / NAMES[1]).write_bytes(b"no image")
    embed_pictures(encoder, Plain(folder), tmp_path / "x.npz", skip_damaged=True)
    names, features, _ = table(tmp_path / "x.npz")
    kept = [name for name in NAMES if name != NAMES[1]]
    assert names == kept
    np.testing.assert_allclose(features, encoder.transform([folder / name for name in kept]), rtol=1e-4, atol=1e-5)
    error = capsys.readouterr().err
    assert "1 of 4 images were left out: sub/B" in error
    assert error.count("\n") == 1
    for name in NAMES:
        (folder / name).write_bytes(b"no image")
    with pytest.raises(UserError, match="4 of 4 images cannot be used"):
        embed_pictures(encoder, Plain(folder), tmp_path / "y.npz", skip_damaged=True)
    assert not (tmp_path / "y.npz").exists()


def test_no_images_at_all_is_one_line(encoder, tmp_path):
    with pytest.raises(UserError, match="there are no images"):
        embed_pictures(encoder, Plain(tmp_path), tmp_path / "x.npz")


def test_a_table_that_cannot_be_written_leaves_what_was_there(encoder, folder, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    out = tmp_path / "x.csv"
    out.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="is full"):
        embed_pictures(encoder, Plain(folder), out)
    assert out.read_bytes() == b"before"
    assert not list(tmp_path.glob(".x*"))


def test_an_encoder_by_hand_is_refused(tmp_path):
    import torch

    with pytest.raises(UserError, match="how pictures are prepared"):
        embed_pictures(Encoder(torch.nn.Flatten(), 4, (0.0,), (1.0,)), Plain(tmp_path), tmp_path / "x.npz")


# --- The command --------------------------------------------------------------------------------------------------


def run_main(capsys, *words):
    code = main(["embed", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x.txt", "has to end in .npz, .csv or .parquet"),
        ("x", "has to end in .npz, .csv or .parquet"),
        ("/dev/null/x.npz", "cannot write to /dev/null"),
        ("folder.csv", "is a folder: name a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(folder, tmp_path, monkeypatch, capsys, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr("contrastive.training.embed.load_encoder", never)
    code, shown, error = run_main(capsys, folder, "--run", RUN, "--out", out)
    assert (code, shown, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ")
    assert said in error


def test_parquet_without_pyarrow_is_one_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("contrastive.training.embed.load_encoder", never)
    code, shown, error = run_main(capsys, folder, "--run", RUN, "--out", tmp_path / "x.parquet")
    assert (code, shown, error.count("\n")) == (2, "", 1)
    assert "needs pyarrow, which is not installed: pip install 'contrastive[parquet]'" in error


def test_images_are_not_written_over(tmp_path, capsys):
    path = tmp_path / "own.npz"
    np.savez(path, train_images=np.zeros((4, 28, 28), np.uint8))
    before = path.read_bytes()
    code, _, error = run_main(capsys, path, "--run", RUN, "--out", path)
    assert code == 2
    assert "is the file of images itself" in error
    assert path.read_bytes() == before


def test_a_run_that_is_not_there_leaves_no_folder(folder, tmp_path, capsys):
    code, _, error = run_main(capsys, folder, "--run", tmp_path / "nowhere", "--out", tmp_path / "new" / "x.npz")
    assert code == 2
    assert "there is no encoder at" in error
    assert not (tmp_path / "new").exists()


def test_the_command_embeds_a_folder(encoder, folder, tmp_path, capsys):
    out = tmp_path / "new" / "features.npz"
    code, shown, _ = run_main(capsys, folder, "--run", RUN, "--out", out)
    assert (code, shown) == (0, f"{out}\n")
    names, features, run = table(out)
    assert (names, run) == (NAMES, encoder.run_identity)
    np.testing.assert_allclose(features, encoder.transform([folder / name for name in NAMES]), rtol=1e-4, atol=1e-5)


def test_the_command_embeds_one_file(encoder, folder, tmp_path, capsys):
    code, _, _ = run_main(capsys, folder / "z.bmp", "--run", RUN, "--out", tmp_path / "x.csv")
    assert code == 0
    names, features, _ = table(tmp_path / "x.csv")
    assert [Path(name).name for name in names] == ["z.bmp"]
    np.testing.assert_allclose(features, encoder.transform(folder / "z.bmp"), rtol=1e-4, atol=1e-5)


def test_the_command_says_which_images_are_damaged(folder, tmp_path, capsys):
    (folder / "z.bmp").write_bytes(b"no image")
    code, shown, error = run_main(capsys, folder, "--run", RUN, "--out", tmp_path / "x.npz")
    assert (code, shown, error.count("\n")) == (2, "", 1)
    assert "1 of 4 images cannot be used: z.bmp (" in error
    code, _, error = run_main(capsys, folder, "--run", RUN, "--out", tmp_path / "x.npz", "--skip-damaged")
    assert code == 0
    assert "1 of 4 images were left out: z.bmp (" in error
    assert table(tmp_path / "x.npz")[0] == NAMES[:3]


def test_the_command_embeds_arrays(encoder, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images)
    code, _, _ = run_main(capsys, tmp_path / "own.npz", "--run", RUN, "--out", tmp_path / "x.npz")
    assert code == 0
    names, features, _ = table(tmp_path / "x.npz")
    assert len(names) == len(set(names)) == 5
    np.testing.assert_allclose(features, encoder.transform(images), rtol=1e-4, atol=1e-5)


def test_a_source_that_is_not_there_is_one_line(tmp_path, capsys):
    code, shown, error = run_main(capsys, tmp_path / "nowhere", "--run", RUN, "--out", tmp_path / "x.npz")
    assert (code, shown, error.count("\n")) == (2, "", 1)
    assert "there is no " in error


def test_links_out_of_the_folder_are_followed_if_that_is_asked_for(folder, tmp_path, capsys):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "away").symlink_to(folder / "sub")
    words = (tmp_path / "linked", "--run", RUN, "--out", tmp_path / "x.npz")
    code, _, error = run_main(capsys, *words)
    assert code == 2
    assert "follow_links" in error
    assert run_main(capsys, *words, "--follow-links")[0] == 0
    assert len(table(tmp_path / "x.npz")[0]) == 2


def test_what_an_image_is_labelled_plays_no_part(tmp_path, encoder, capsys):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    np.savez(
        tmp_path / "minus.npz", train_images=images, train_labels=np.array([-1, 1, -1, 1, 1])
    )  # refused by a report
    assert main(["embed", str(tmp_path / "minus.npz"), "--run", str(RUN), "--out", str(tmp_path / "a.npz")]) == 0
    assert np.allclose(table(tmp_path / "a.npz")[1], encoder.transform(images), atol=1e-5)
    (tmp_path / "scans").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "scans" / "0.png")
    (tmp_path / "scans" / "labels.csv").write_text("nonsense\n")
    assert main(["embed", str(tmp_path / "scans"), "--run", str(RUN), "--out", str(tmp_path / "b.csv")]) == 0
    assert table(tmp_path / "b.csv")[0] == ["0.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    encoder = load_encoder(RUN)
    for name, why in ((tmp_path / "pipe.png", "is no regular file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=why):
            encoder.transform(name)
