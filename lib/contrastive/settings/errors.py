"""The errors that a user can cause, each told as one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A foreseeable mistake. Its message is one line that says what was wrong and what to do."""


class RunError(UserError):
    """What went wrong after the start, through no mistake in the request: a full disk, a diverged training. Its message
    is one line, too; what had been finished is kept."""


def did_you_mean(name: str, options: Iterable[str], what: str) -> str:
    """One line for an unknown `name`: the nearest spelling, if any is near, and all allowed ones."""
    allowed = list(options)
    close = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {str(name)!r}.{hint} Choose one of: {', '.join(allowed)}."


def one_of(value: str, options: Iterable[str], what: str) -> str:
    """The value, if it is an option. Raises: ValueError with the nearest one."""
    if value not in (allowed := list(options)):
        raise ValueError(did_you_mean(value, allowed, what))
    return value
