"""A disk that is full or cannot be written to is one line, and nothing is lost."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from contrastive import UserError
from contrastive.settings import RunError

from .packed_files import (  # noqa: F401
    fixture_decoded,
    fixture_few_at_a_time,
    fixture_two_processes,
    pack,
    save,
    scenes,
)

pytestmark = pytest.mark.usefixtures("fresh_runs")


class FullDisk:
    """A file that takes some bytes, and then no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = self.file.write(data[: min(self.room, 700)])
        self.room -= n
        return n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("how", ["write", "write in another process", "fsync"])
def test_a_full_disk_is_one_line_and_with_space_it_goes_on(how, request, tmp_path, monkeypatch, few_at_a_time, decoded):
    folder = save(tmp_path / "a", scenes())
    if how == "write in another process":
        request.getfixturevalue("two_processes")
    original = Path.open

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path, mode="r", *args, **options):
        file = original(path, mode, *args, **options)
        full_now = path.name.startswith("pixels") and mode == "r+b" and sum(decoded().values()) > 8
        return FullDisk(file, 2000) if full_now else file

    with monkeypatch.context() as patch:
        if how == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "open", open_full)
        with pytest.raises(RunError, match=r"the disk that holds .* is full .*pixels-\w+ could not be") as error:
            pack(folder)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(pack(folder).pixels, np.stack(scenes()).transpose(0, 3, 1, 2))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, fresh_runs):
    fresh_runs.mkdir(mode=0o500)
    with pytest.raises(UserError, match="CONTRASTIVE_RUNS"):
        pack(save(tmp_path / "a", scenes()))


def test_a_runs_folder_that_is_a_file_is_one_line(tmp_path, fresh_runs):
    fresh_runs.write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*Not a directory.*CONTRASTIVE_RUNS"):
        pack(save(tmp_path / "a", scenes()))
