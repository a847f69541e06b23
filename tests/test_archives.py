"""Archives: read in place, as the folder would be; what is broken, hostile or a link is refused or counted."""

import io
import os
import struct
import tarfile
import zipfile

import pytest

from contrastive import load_images

from .source_cases import Case, check, parametrised, picture, put, refused, rows_of

FOUR = {
    f"{part}/{name}/{i}.png": ...
    for part, n in (("train", 5), ("test", 2))
    for name in ("cat", "dog")
    for i in range(n)
}
READ = {"train": {"cat": 5, "dog": 5}, "test": {"cat": 2, "dog": 2}}
JUNK = {"__MACOSX/train/cat/._0.png": b"\0", ".DS_Store": b"x"}
TOOLS = ("", "left behind by an operating system or a tool")
TABLE = b"image,label\n" + b"".join(b"%d,%s\n" % (i, (b"a", b"b")[i % 2]) for i in range(10))


def contents(files):
    return {name: picture(name) if content is ... else content for name, content in files.items()}


def under(folder, files):
    return {f"{folder}/{name}": content for name, content in contents(files).items()}


def zipped(files, name="x.zip", compression=zipfile.ZIP_DEFLATED, change=lambda content: content):
    def make(root):
        with zipfile.ZipFile(root / name, "w", compression) as archive:
            for file, content in contents(files).items():
                archive.writestr(file, content)
        (root / name).write_bytes(change((root / name).read_bytes()))
        return root / name

    return make


def tarred(files, name="x.tar", mode="w", links=(), change=lambda content: content):
    def make(root):
        with tarfile.open(root / name, mode) as archive:
            for file, content in contents(files).items():
                info = tarfile.TarInfo(file)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for file, kind, target in links:
                info = tarfile.TarInfo(file)
                info.type, info.linkname = kind, target
                archive.addfile(info)
        (root / name).write_bytes(change((root / name).read_bytes()))
        return root / name

    return make


def zip_with_a_link(root):
    zipped(FOUR)(root)
    with zipfile.ZipFile(root / "x.zip", "a") as archive:
        info = zipfile.ZipInfo("train/cat/passwd.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return root / "x.zip"


def encrypted(content):
    """All entries said to be encrypted, in both places where an archive says so."""
    for start, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        parts = content.split(start)
        content = start.join([parts[0], *[p[: at - 4] + bytes([p[at - 4] | 1]) + p[at - 3 :] for p in parts[1:]]])
    return content


CASES = [
    Case("zip", zipped(FOUR), READ),
    Case("ZIP, stored", zipped(FOUR, "X.ZIP", zipfile.ZIP_STORED), READ),
    Case("zip with an outer folder and junk", zipped(under("my pets", FOUR) | JUNK), READ, left_out={TOOLS: 2}),
    Case("zip of Windows, with backslashes", zipped({n.replace("/", "\\"): c for n, c in contents(FOUR).items()}),
         READ),
    Case("zip with ./", zipped({f"./{n}": c for n, c in contents(FOUR).items()}), READ),
    Case("zip with folders of their own", zipped({"train/": b"", "train/cat/": b"", **FOUR}), READ),
    Case("zip with bzip2", zipped(FOUR, compression=zipfile.ZIP_BZIP2), "is compressed in an unusual way. Unpack it"),
    Case("flat zip with a table", zipped({f"{i}.png": ... for i in range(10)} | {"labels.csv": TABLE}),
         {"train": {"a": 5, "b": 5}}, remarks=("^labels.csv gives 10 of 10", "10 training images have a label")),
    Case("zip with ../", zipped({"../evil.png": ..., **FOUR}),
         "holds a file whose name leads out of it, '../evil.png'"),
    Case("zip with /", zipped({"/etc/evil.png": ..., **FOUR}), "leads out of it, '/etc/evil.png'"),
    Case("zip with ..\\", zipped({"a\\..\\..\\evil.png": ..., **FOUR}), "leads out of it"),
    Case("zip with a link", zip_with_a_link, READ, left_out={("", "no regular files"): 1}),
    Case("encrypted zip", zipped(FOUR, change=encrypted), "x.zip is encrypted. Unpack it, and give the folder"),
    Case("truncated zip", zipped(FOUR, change=lambda content: content[:-100]),
         r"as an archive \(BadZipFile\). Pack it again"),
    Case("empty zip", zipped({}), "there are no images in .*x.zip: it holds no files"),
    Case("zip of zero bytes", zipped({}, change=lambda content: b""), r"as an archive \(BadZipFile\)"),
    Case("zip in a zip", zipped({"inner/pets.zip": b"PK"}), "To read 'inner/pets.zip', give its path, or unpack it"),
    Case("zip of text", zipped({"a.txt": b"x"}), "it holds 1 with .txt"),
    Case("zip with a damaged picture", zipped(FOUR, compression=zipfile.ZIP_STORED,
         change=lambda content: content.replace(picture("train/cat/3.png")[60:70], bytes(10))),
         r"^1 file in .* cannot be read: train/cat/3.png cannot be read \(BadZipFile\)\. Replace"),
    Case("the same, skipped", zipped(FOUR, compression=zipfile.ZIP_STORED,
         change=lambda content: content.replace(picture("train/cat/3.png")[60:70], bytes(10))),
         {"train": {"cat": 4, "dog": 5}, "test": READ["test"]}, {"skip_damaged": True},
         left_out={("train/cat", "damaged"): 1}),
    Case("tar", tarred(FOUR), READ),
    Case("tar with ./ and an outer folder", tarred(under("./pets", FOUR)), READ),
    Case("tar.gz", tarred(FOUR, "x.tar.gz", "w:gz"), READ),
    Case("tgz", tarred(under("pets", FOUR) | JUNK, "x.tgz", "w:gz"), READ, left_out={TOOLS: 2}),
    Case("tar.bz2", tarred(FOUR, "x.tar.bz2", "w:bz2"), READ),
    Case("tar.xz", tarred(FOUR, "x.tar.xz", "w:xz"), READ),
    Case("TAR that is compressed, under a wrong name", tarred(FOUR, "x.TAR", "w:gz"), READ),
    Case("tar.gz that is not compressed", tarred(FOUR, "x.tar.gz"), READ),
    Case("tar with links and devices", tarred(FOUR, links=[("train/cat/a.png", tarfile.SYMTYPE, "/etc/passwd"),
         ("train/cat/b.png", tarfile.LNKTYPE, "train/cat/0.png"), ("train/cat/c.png", tarfile.FIFOTYPE, ""),
         ("train/emu", tarfile.DIRTYPE, "")]), READ, left_out={("", "no regular files"): 3}),
    Case("tar with ../", tarred({"../evil.png": ...}), "leads out of it, '../evil.png'"),
    Case("tar with /", tarred({"/evil.png": ...}), "leads out of it, '/evil.png'"),
    Case("truncated tar", tarred(FOUR, change=lambda content: content[:3000]), r"x.tar cannot be read as an archive"),
    Case("truncated tar.gz", tarred(FOUR, "x.tar.gz", "w:gz", change=lambda content: content[:-300]), "as an archive"),
    Case("no tar", tarred({}, change=lambda content: b"text" * 999), r"cannot be read as an archive \(ReadError\)"),
]  # fmt: skip


@parametrised(CASES)
def test_an_archive(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("pack", [zipped(FOUR), tarred(FOUR), tarred(FOUR, "x.tar.gz", "w:gz")])
def test_an_archive_is_the_folder_and_is_not_unpacked(tmp_path, fresh_runs, pack):
    put(tmp_path / "folder", FOUR)
    path, folder = load_images(pack(tmp_path)), load_images(tmp_path / "folder")
    assert path.sha256 == folder.sha256
    assert (path.train_names, path.test_names) == (folder.train_names, folder.test_names)
    assert rows_of(path) == READ
    assert not list(fresh_runs.glob("cache/unpacked-*"))
    assert len(list(tmp_path.iterdir())) == 3  # the folder, the archive, and the caches


def test_an_archive_that_changed_is_read_again(tmp_path, fresh_runs):
    before = load_images(zipped(FOUR)(tmp_path))
    after = load_images(zipped(FOUR | {"train/cat/9.png": ...})(tmp_path))
    assert (len(before.train), len(after.train)) == (10, 11)


def test_an_archive_that_claims_to_be_huge(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**10)  # 1 MB of memory
    path = tarred({"train/cat/0.png": bytes(2**20)}, "x.tar.gz", "w:gz")(tmp_path)
    assert path.stat().st_size < 2**12
    refused(path, "x.tar.gz holds 0.0 GB; .* of which data may fill")


def test_a_picture_in_a_zip_that_understates_its_size(tmp_path, peak):
    path = zipped(FOUR | {"train/cat/9.png": bytes(2**26)})(tmp_path)
    content = path.read_bytes()
    true = struct.pack("<I", 2**26)
    path.write_bytes(content.replace(true, struct.pack("<I", 1000)))
    peak()
    refused(path, r"train/cat/9.png cannot be read \(BadZipFile\)")
    assert peak() < 2**23
