"""Pieces of Markdown for what is generated."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = 120


def link(path: Path, document: str) -> str:
    """A path as a link from a document, which is named by its path below the root."""
    return Path(os.path.relpath(path, (ROOT / document).parent)).as_posix()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table. numbers: all columns but the first are set to the right."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|:--|" + ("--:|" if numbers else ":--|") * (len(head) - 1))
    return re.sub(r"\|  (?=\|)", "| ", "\n".join(lines))


def wrapped(text: str, bullet: str = "") -> str:
    """A paragraph, or an item of a list, in lines of at most 120 characters. Code in backticks stays in one piece."""
    text = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(text.split()))
    indent = " " * len(bullet)
    wrapper = textwrap.TextWrapper(
        LINE, initial_indent=bullet, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(text).replace("\0", " ")
