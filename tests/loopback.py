"""A server on loopback, well-behaved or not, that has the data sets with names in small; nothing else can be asked.

A module of tests that imports the fixtures can use them; `loopback_only` then holds for all of its tests.
"""

import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from contrastive.data import cifar, download, medmnist, mnist
from contrastive.data.idx import FASHION_MD5, ORIGINAL_MD5
from contrastive.data.named import NAMED

from .mnist_files import small_set


class Server:
    """Files on loopback. faults: by path, what goes wrong: missing, other, stall, cut, chatter or norange."""

    def __init__(self):
        self.files, self.faults, self.asked = {}, {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                with suppress(OSError):  # nobody reads on
                    outer.answer(self, self.path.partition("?")[0].removeprefix("/"))
                self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def answer(self, request, name):
        asked = request.headers.get("Range")
        self.asked.append((name, asked))
        fault, content = self.faults.get(name), self.files.get(name)
        if content is None or fault == "missing":
            return request.send_error(404)
        if fault == "chatter":
            return request.wfile.write(b"\xffhello\r\n\r\n")
        if fault == "other":
            content = b"<html>Please log in to this network</html>".ljust(len(content))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fault != "norange" else 0
        if start >= len(content) > 0:
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        rest = content[start:]
        request.wfile.write(rest[: len(rest) // 2] if fault in ("cut", "stall") else rest)
        if fault == "stall":
            request.wfile.flush()
            time.sleep(5)

    def downloads(self, name):
        """Requests for a file, without those that only ask whether it is there."""
        return [asked for asked in self.asked if asked[0] == name][1:]


@pytest.fixture(name="serve")
def fixture_serve():
    """A function that starts a server."""
    started = []

    def start():
        started.append(Server())
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch, no_data):
    """Connections to anywhere else fail the test."""
    connect = socket.socket.connect

    def local(self, address):
        assert address[0] == "127.0.0.1", address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)


def visible(folder):
    """Files that could pass for data."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


# --- data sets in small -------------------------------------------------------------------------------------------


def archive(n=6, side=28):
    """The bytes of an .npz file as MedMNIST has them."""
    rng, parts = np.random.default_rng(0), {}
    for part in ("train", "val", "test"):
        parts[f"{part}_images"] = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
        parts[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % 2)[:, None]
    file = io.BytesIO()
    np.savez_compressed(file, **parts)
    return file.getvalue()


def original_is(monkeypatch, name, content):
    """From now on this content counts as the original of a data set."""
    source = replace(NAMED[name].source, md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(NAMED, name, replace(NAMED[name], source=source))


@pytest.fixture(name="breast")
def fixture_breast(serve, monkeypatch):
    """A server with a small breastmnist.npz that counts as the original."""
    server = serve()
    server.files["breastmnist.npz"] = archive()
    monkeypatch.setattr(medmnist, "MIRRORS", [server.url])
    original_is(monkeypatch, "breastmnist", archive())
    return server


@pytest.fixture(name="small_idx")
def fixture_small_idx(serve, monkeypatch):
    """A server with the small set, which counts as MNIST, Fashion-MNIST and KMNIST now."""
    server = serve()
    for name, content in small_set().items():
        server.files[f"{name}.gz"] = packed = gzip.compress(content, mtime=0)
        monkeypatch.setitem(ORIGINAL_MD5, name, hashlib.md5(content).hexdigest())
        monkeypatch.setitem(FASHION_MD5, name, hashlib.md5(content).hexdigest())
        monkeypatch.setitem(mnist.KMNIST_PACKED_MD5, name, hashlib.md5(packed).hexdigest())
    for name in mnist.MIRRORS:
        monkeypatch.setitem(mnist.MIRRORS, name, [server.url])
    return server


def batches():
    """Names and bytes of the six files in small, with their images and labels."""
    rng = np.random.default_rng(0)
    files, parts = {}, []
    for name in cifar.FILE_MD5:
        images = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        labels = rng.permutation(np.repeat(np.arange(10), 2))
        files[name] = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))
        parts.append((images, labels))
    return files, parts


def tar_of(files, folder="cifar-10-batches-bin", level=9):
    """A .tar.gz of files, with what else the original holds."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=level) as archive:
        entry = tarfile.TarInfo(folder)
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        for name, content in {"readme.html": b"<html>", **files, "batches.meta.txt": b"airplane\n"}.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(name="small_cifar")
def fixture_small_cifar(serve, monkeypatch):
    """A server with CIFAR-10 in small, which counts as the original now."""
    server, (files, _) = serve(), batches()
    server.files[cifar.ARCHIVE] = tar_of(files)
    monkeypatch.setattr(cifar, "MIRRORS", [server.url])
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", 20)
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(server.files[cifar.ARCHIVE]).hexdigest())
    for name, content in files.items():
        monkeypatch.setitem(cifar.FILE_MD5, name, hashlib.md5(content).hexdigest())
    return server
