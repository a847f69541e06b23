"""Being asked to stop: by Ctrl-C, by SIGTERM, or by a terminal that was closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .files import mute


class Terminated(KeyboardInterrupt):
    """SIGTERM or a hang-up, taken as Ctrl-C is. number: the signal's."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def terminate(number: int, frame: FrameType | None) -> None:
    """A signal handler. Raises: Terminated."""
    for descriptor in (1, 2):
        if number == getattr(signal, "SIGHUP", None) and os.isatty(descriptor):  # the terminal has gone
            mute(descriptor)
    raise Terminated(number)


class Stop:
    """While it is entered, Ctrl-C, SIGTERM and hang-up are only noted in `signal`, so that what must be finished first,
    such as a training step and its checkpoint, can be; then `obey`, or leaving, does what they ask for. A second Ctrl-C
    acts at once. Elsewhere than in the main thread, where Python has no say in signals, it does nothing."""

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):  # nohup's wish is respected
                    self._before[number] = handler  # type: ignore[assignment]
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self.obey()  # one that came after the last look

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal, number
        if again and number == signal.SIGINT:  # of the others, shells and kernels send several for one
            self.obey()

    def obey(self) -> None:
        """Let the signal, if there was one, do what it would have done; from now on signals act at once again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        noted, self.signal = self.signal, 0
        if noted:
            signal.raise_signal(noted)
