"""Decoding without a word of the libraries that do it."""

import logging
import os
import threading
import warnings

# Without a handler, what Pillow logs of a TIFF that it does not read would be printed.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Quiet:
    """While any thread decodes, no warning is printed or raised: a sound file may cause some, and none helps a user.

    `warnings.catch_warnings` alone is not enough: threads would leave it in another order than they entered.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Threads that were decoding do not exist in a forked process."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            self._before.__exit__(None, None, None)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__(None, None, None)


quiet = Quiet()
