"""Files below one root, in a folder, a .zip or a .tar, all read in the same way; nothing is unpacked beside them."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePath
from typing import Protocol, TypeVar

from ..settings import UserError
from .guards import fit_memory

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BIGGEST_FILE = 2**31  # bytes, of one file in an archive
BLOCK = 2**20  # bytes that are read at a time
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # first bytes of a .tar that is, whatever its name
Entry = TypeVar("Entry")


class Tree(Protocol):
    """Files by their names below a root. where: the root, for people. irregular: how many entries are no files."""

    where: Path
    names: list[str]
    irregular: int

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError, or what a broken archive raises."""

    def size(self, name: str) -> int:
        """A file's size in bytes."""


class Folder:
    """The files below a folder, with `/` between the parts of a name, sorted.

    Args:
        where: the folder.
        follow_links: whether links may lead out of it.

    Raises:
        UserError: when it cannot be listed, or a link leads out of it.
    """

    def __init__(self, where: Path, follow_links: bool = False) -> None:
        self.where, self.irregular = where, 0
        self._root, self._follow, self._seen = where.resolve(), follow_links, {where.resolve()}
        # With the time of the entry's own last change, which cannot be set by hand: no replaced file goes unnoticed
        self._facts = dict(self._walk())
        self.names = sorted(self._facts)

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""
        return self._stamp_of_all if names == self.names else self._stamp_of(names)

    @cached_property
    def _stamp_of_all(self) -> str:
        return self._stamp_of(self.names)

    def _stamp_of(self, names: Sequence[str]) -> str:
        facts = array("q", chain.from_iterable(self._facts[name] for name in names))
        return _stamp(self._root, os.fsencode("\0".join(names)), facts.tobytes())

    def _walk(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        folders = [""]  # a list of what is to be done: a folder may lie deeper than calls can be nested
        while folders:
            prefix = folders.pop()
            folder = os.path.join(self.where, prefix)
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                raise UserError(
                    f"{folder} cannot be read: {error.strerror}. Make it readable, or move it away."
                ) from None
            for entry in entries:
                name = prefix + entry.name
                try:
                    if entry.is_symlink():
                        if any(part.startswith(".") for part in name.split("/")):  # of a tool, and not read anyway
                            self.irregular += 1
                            continue
                        if not self._may_follow(Path(entry.path)):
                            self.irregular += 1
                            continue
                    if entry.is_dir():
                        folders.append(name + "/")
                        continue
                    status = entry.stat()
                except OSError as error:
                    raise UserError(f"{entry.path} cannot be read: {error.strerror}. Mend or remove it.") from None
                if stat.S_ISREG(status.st_mode):
                    yield name, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                else:
                    self.irregular += 1

    def _may_follow(self, link: Path) -> bool:
        """Whether to follow a link: not to a folder that is read anyway. Raises: UserError for one that leads out of
        the root."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # missing; a loop of links
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{link} cannot be read: {reason}. Mend or remove that link.") from None
        if not self._follow and not target.is_relative_to(self._root):
            raise UserError(
                f"{link} is a link that leads out of {self.where}. Put what it leads to there, or allow it: "
                "-p follow_links=true."
            )
        if not target.is_dir():
            return True
        inside = target.is_relative_to(self._root)
        hidden = inside and any(part.startswith(".") for part in target.relative_to(self._root).parts)
        if target in self._seen or self._root.is_relative_to(target) or (inside and not hidden):
            return False
        self._seen.add(target)
        return True

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError."""
        # Without what `open` does beside it, which would take a tenth as long as decoding a small picture
        descriptor = os.open(f"{self.where}/{name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if most >= 0:
                return os.read(descriptor, most)
            content = os.read(descriptor, self._facts[name][0] + 1)
            if len(content) != self._facts[name][0]:  # it has grown, or is larger than can be read at once
                while more := os.read(descriptor, BLOCK):
                    content += more
            return content
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return self._facts[name][0]


class ZipTree:
    """The files in a .zip. Raises: UserError when it cannot be read."""

    def __init__(self, where: Path) -> None:
        self.where, self.irregular = where, 0
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            entries = [entry for entry in self._archive().infolist() if not entry.is_dir()]
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise _broken(where, error) from None
        files = [entry for entry in entries if not stat.S_ISLNK(entry.external_attr >> 16)]
        self.irregular += len(entries) - len(files)
        self._entries = _by_name(where, ((entry.filename, entry) for entry in files))
        self.names = list(self._entries)
        if any(entry.flag_bits & 1 for entry in entries):
            raise UserError(f"{where} is encrypted. Unpack it, and give the folder.")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
            # Others than these unpack without bounds
            raise UserError(f"{where} is compressed in an unusual way. Unpack it, and give the folder.")

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""
        return file_stamp(self.where)

    def _archive(self) -> zipfile.ZipFile:
        # A process that was forked shares the place in its parent's file, and so needs one of its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.where)
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError, ValueError, zipfile.BadZipFile and the like."""
        if self._entries[name].file_size > BIGGEST_FILE:
            raise ValueError("is larger than 2 GB")
        with self._archive().open(self._entries[name]) as file:
            return file.read(self._entries[name].file_size if most < 0 else most)  # never all that a bomb unpacks to

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return self._entries[name].file_size


class TarTree:
    """The files in a .tar; of one that is compressed as a whole, all contents are held in memory, since there is no way
    to begin in the middle. Raises: UserError when it cannot be read, or is too large for that."""

    def __init__(self, where: Path) -> None:
        self.where, self.irregular = where, 0
        found: list[tuple[str, tuple[int, int]]] = []
        contents: dict[tuple[int, int], bytes] = {}
        n_bytes = 0
        try:
            with where.open("rb") as file:
                compressed = file.read(6).startswith(COMPRESSED)
            with tarfile.open(where, "r" if compressed else "r:") as archive:
                for member in archive:
                    if not member.isfile() or member.issparse():
                        self.irregular += not member.isdir()
                        continue
                    place = member.offset_data, member.size
                    found.append((member.name, place))
                    if compressed:
                        n_bytes += member.size
                        fit_memory(n_bytes, where)
                        content = archive.extractfile(member)
                        assert content is not None
                        contents[place] = content.read()
        except UserError:
            raise
        except Exception as error:  # each compression has its own
            raise _broken(where, error) from None
        self._places = _by_name(where, found)
        self.names = list(self._places)
        self._contents = contents if compressed else None

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""
        return file_stamp(self.where)

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError, ValueError."""
        offset, size = self._places[name]
        if self._contents is not None:
            content = self._contents[offset, size]
            return content if most < 0 else content[:most]
        with self.where.open("rb") as file:
            file.seek(offset)
            content = file.read(size if most < 0 else min(size, most))
        if most < 0 and len(content) < size:
            raise ValueError("is truncated")
        return content

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return self._places[name][1]


def is_archive(path: PurePath) -> bool:
    """Whether a file's name is that of an archive of files."""
    return path.name.lower().endswith(ARCHIVES)


def open_tree(path: Path, follow_links: bool = False) -> Tree:
    """The files in a folder or an archive. Raises: UserError."""
    if path.is_dir():
        return Folder(path, follow_links)
    return ZipTree(path) if path.name.lower().endswith(".zip") else TarTree(path)


def _by_name(where: Path, entries: Iterable[tuple[str, Entry]]) -> dict[str, Entry]:
    """An archive's entries by their names, with `/` between the parts, sorted; of several with one name the last, as
    unpacking gives. Raises: UserError when a name leads out of the archive, as no honest one's do."""
    found = {}
    for name, entry in entries:
        parts = name.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts:
            raise UserError(f"{where} holds a file whose name leads out of it, {name!r}. Do not use it.")
        found["/".join(part for part in parts if part not in ("", "."))] = entry
    return dict(sorted(found.items()))


def _broken(where: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return UserError(f"{where} cannot be read as an archive ({reason}). Pack it again, or give the folder.")


def _stamp(root: Path, *facts: bytes) -> str:
    return hashlib.sha256(b"\n".join([os.fsencode(root), *facts])).hexdigest()


def file_stamp(path: Path) -> str:
    """What changes when a file does, or is replaced."""
    status = path.stat()
    return _stamp(path.resolve(), f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
