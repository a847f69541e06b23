"""Files below one root, in a folder, a .zip or a .tar, all read in the same way; nothing is unpacked beside them."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ..settings import UserError
from .guards import fit_memory

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BIGGEST_FILE = 2**31  # bytes, of one file in an archive


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
        found = sorted(self._walk(str(where), ""))
        self.names = [name for name, *_ in found]
        # With the time of the entry's own last change, which cannot be set by hand: no replaced file goes unnoticed
        self._facts = {name: facts for name, *facts in found}

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""
        return _stamp(self._root, (f"{name}\0{self._facts[name]}\n" for name in names))

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, int, int, int]]:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}. Make it readable, or move it away.") from None
        for entry in entries:
            name = prefix + entry.name
            try:
                if entry.is_symlink() and not self._may_follow(Path(entry.path)):
                    continue
                if entry.is_dir():
                    yield from self._walk(entry.path, name + "/")
                    continue
                status = entry.stat()
            except OSError as error:
                raise UserError(f"{entry.path} cannot be read: {error.strerror}. Mend or remove it.") from None
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            else:
                self.irregular += 1

    def _may_follow(self, link: Path) -> bool:
        """Whether to follow a link: not to what is read anyway, or to itself. Raises: UserError for one that leads out
        of the folder."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # missing; a loop of links
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{link} cannot be read: {reason}. Mend or remove that link.") from None
        if not self._follow and not target.is_relative_to(self._root):
            raise UserError(
                f"{link} is a link that leads out of {self.where}. Put what it leads to there, or set "
                "follow_links=true."
            )
        if target.is_dir():
            if target in self._seen or self._root.is_relative_to(target):
                return False
            self._seen.add(target)
        return True

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError."""
        with open(self.where / name, "rb") as file:
            return file.read(most)

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
        self._entries = {entry.filename: entry for entry in sorted(entries, key=lambda e: e.filename)}
        self.names = _checked_names(where, list(self._entries))
        if any(entry.flag_bits & 1 for entry in entries):
            raise UserError(f"{where} is encrypted. Unpack it, and give the folder.")

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
        with self._archive().open(name) as file:
            return file.read(most)

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return self._entries[name].file_size


class TarTree:
    """The files in a .tar; of one that is compressed as a whole, all contents are held in memory, since there is no way
    to begin in the middle. Raises: UserError when it cannot be read, or is too large for that."""

    def __init__(self, where: Path) -> None:
        self.where, self.irregular = where, 0
        self._places: dict[str, tuple[int, int]] = {}
        self._contents: dict[str, bytes] | None = None if where.suffix == ".tar" else {}
        try:
            with tarfile.open(where) as archive:
                for member in archive:
                    if not member.isfile():
                        self.irregular += not member.isdir()
                        continue
                    name = member.name.removeprefix("./")
                    self._places[name] = member.offset_data, member.size
                    if self._contents is not None:
                        fit_memory(sum(size for _, size in self._places.values()), where)
                        file = archive.extractfile(member)
                        assert file is not None
                        self._contents[name] = file.read()
        except UserError:
            raise
        except Exception as error:  # each compression has its own
            raise _broken(where, error) from None
        self.names = _checked_names(where, sorted(self._places))

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when any of these files does."""
        return file_stamp(self.where)

    def read(self, name: str, most: int = -1) -> bytes:
        """A file's content, or its first bytes. Raises: OSError, ValueError."""
        if self._contents is not None:
            return self._contents[name] if most < 0 else self._contents[name][:most]
        offset, size = self._places[name]
        with self.where.open("rb") as file:
            file.seek(offset)
            content = file.read(size if most < 0 else min(size, most))
        if most < 0 and len(content) < size:
            raise ValueError("is truncated")
        return content

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return self._places[name][1]


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive of files."""
    return path.name.lower().endswith(ARCHIVES)


def open_tree(path: Path, follow_links: bool = False) -> Tree:
    """The files in a folder or an archive. Raises: UserError."""
    if path.is_dir():
        return Folder(path, follow_links)
    return ZipTree(path) if path.name.lower().endswith(".zip") else TarTree(path)


def _checked_names(where: Path, names: list[str]) -> list[str]:
    """Raises: UserError when an archive's names lead out of it, as no honest one's do."""
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise UserError(f"{where} holds a file whose name leads out of it, {name!r}. Do not use it.")
    return names


def _broken(where: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return UserError(f"{where} cannot be read as an archive ({reason}). Pack it again, or give the folder.")


def _stamp(root: Path, lines: Iterable[str]) -> str:
    digest = hashlib.sha256(os.fsencode(root) + b"\n")
    for line in lines:
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def file_stamp(path: Path) -> str:
    """What changes when a file does, or is replaced."""
    status = path.stat()
    return _stamp(path.resolve(), [f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"])
