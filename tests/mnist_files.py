"""MNIST's four files in small, and a mirror that serves them."""

import http.server
import threading
from pathlib import Path

import numpy as np

from contrastive.data.idx import IDX_FILES


def idx(array):
    """The bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def small_set():
    """The bytes of four IDX files: 60 training and 20 test images of random pixels."""
    rng = np.random.default_rng(0)
    parts = []
    for n in (60, 20):
        parts += [rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)]
    return dict(zip(IDX_FILES, map(idx, parts), strict=True))


class Mirror:
    """An HTTP server on loopback with the files of a folder."""

    def __init__(self, folder: Path):
        handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
