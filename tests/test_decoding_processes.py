"""Several processes decode to the same pixels as one, and die without harm."""

import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive.data import pictures, processes
from contrastive.data.pictures import Reading, prepare_from
from contrastive.settings import RunError

from .packed_files import (  # noqa: F401
    N,
    fixture_decoded,
    fixture_two_processes,
    found_in,
    needs_fork,
    pack,
    save,
    scene,
    scenes,
)

pytestmark = pytest.mark.usefixtures("fresh_runs")


def with_all_kinds(folder):
    """Sizes, colours, depths and damages, with things to remark."""
    deep = scene(5, 30, 30, 1).astype(np.uint16) * 99
    save(folder, [*scenes(10, channels=1), *scenes(12, height=50, width=34), deep])
    (folder / "004.png").write_bytes(b"")
    for i in (6, 20):
        Image.new("RGBA", (20, 30), (200, 30, 99, 120)).save(folder / f"{i:03}.png")
    return folder


def test_the_number_of_processes_changes_nothing(tmp_path, monkeypatch):
    folder = with_all_kinds(tmp_path / "a")
    monkeypatch.setattr(pictures, "CHUNK", 2)
    found = {}
    for n in (0, 1, 2):
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / f"runs-{n}"))
        monkeypatch.setattr(pictures, "PARALLEL_FROM", 1 if n else 1000)
        monkeypatch.setattr(processes, "cores", lambda n=n: n)
        found[n] = pack(folder)
        assert found[n].damaged == {4: "is empty"}
        assert found[n].remarks == {"transparent: laid over white": 2, "more than 8 bits, scaled by a window": 1}
    for n in (1, 2):
        np.testing.assert_array_equal(found[0].pixels, found[n].pixels)
        assert (found[0].preparation, found[0].reason) == (found[n].preparation, found[n].reason)


@needs_fork
def test_others_decode_and_nothing_that_is_drawn_later_depends_on_it(tmp_path, two_processes, decoded):
    folder = save(tmp_path / "a", scenes())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pack(folder)
    assert torch.equal(torch.get_rng_state(), before)
    by = Counter(line.split()[0] for line in decoded.log.read_text().splitlines())
    assert by.pop(str(os.getpid())) == 1  # a look at the first
    assert len(by) == 2
    assert sum(by.values()) == N


@needs_fork
def test_a_process_that_is_killed_is_told_in_a_line_and_the_work_goes_on(tmp_path, two_processes, decoded, monkeypatch):
    folder, here = save(tmp_path / "a", scenes()), os.getpid()

    def killed():
        if os.getpid() != here and sum(decoded().values()) > 8:
            os.kill(os.getpid(), signal.SIGKILL)

    decoded.before = killed
    with pytest.raises(RunError, match="a process that decodes images was killed") as error:
        pack(folder)
    assert "\n" not in str(error.value)
    decoded.before = lambda: None
    np.testing.assert_array_equal(pack(folder).pixels, np.stack(scenes()).transpose(0, 3, 1, 2))


def test_processes_hold_few_pixels_at_a_time(tmp_path):
    found = found_in(save(tmp_path / "a", scenes(12)), image_size=1024)
    sizes = [part.pixels.nbytes for part in prepare_from(found, pictures.Plan(found, Reading(image_size=1024)))]
    assert max(sizes) <= 2**23
    assert sum(sizes) == 12 * 3 * 2**20
