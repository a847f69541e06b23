"""Pictures are decoded once, whatever interrupts it, and anew when a file changed."""

import hashlib
import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive.data import forget_images, load_images, packed

from .packed_files import (  # noqa: F401
    N,
    caches,
    fixture_decoded,
    fixture_few_at_a_time,
    fork,
    kept_pixels,
    needs_fork,
    pack,
    save,
    scene,
    scenes,
)

pytestmark = pytest.mark.usefixtures("fresh_runs")


# --- Once ---------------------------------------------------------------------------------------------------------


def test_a_second_time_nothing_is_decoded(tmp_path, decoded, fresh_runs):
    folder = save(tmp_path / "a", scenes())
    first = pack(folder)
    before = decoded()
    assert sum(before.values()) == N + 1  # and a look at the first
    second = pack(folder)
    assert decoded() == before
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.preparation, first.digest, first.reason) == (second.preparation, second.digest, second.reason)
    cache = caches(fresh_runs)[0]
    assert {path.name for path in cache.iterdir()} == {"pack.json", kept_pixels(cache).name}


def test_another_way_to_prepare_them_is_kept_apart(tmp_path, fresh_runs):
    folder = save(tmp_path / "a", scenes())
    assert pack(folder).pixels.shape != pack(folder, image_size=16).pixels.shape
    assert len(caches(fresh_runs)) == 2


def interrupted_at(n):
    """What interrupts the n-th decoding."""
    seen = []

    def before():
        seen.append(1)
        if len(seen) == n:
            raise KeyboardInterrupt

    return before


@pytest.mark.parametrize("kind", ["alike", "mixed"])
def test_an_interrupted_run_goes_on(kind, tmp_path, decoded, few_at_a_time, monkeypatch):
    arrays = scenes() if kind == "alike" else [scene(i, 24 + i, 30, 1 + 2 * (i % 2)) for i in range(N)]
    folder = save(tmp_path / "a", arrays)
    monkeypatch.setattr(packed, "FLUSH_SECONDS", 1000)  # nothing is kept but by the interruption
    # After a look at the first one; of the mixed ones, the first two tell twice that the plan does not hold
    decoded.before = interrupted_at((1 if kind == "alike" else 5) + 12)
    with pytest.raises(KeyboardInterrupt):
        pack(folder)
    decoded.before = lambda: None
    first = decoded()
    found = pack(folder)
    again = sum(decoded().values()) - sum(first.values()) - 1  # but for a look at the first
    assert again <= N - 12 + 3  # and a chunk of three
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "elsewhere"))
    whole = pack(folder)
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    assert (found.reason, found.preparation) == (whole.reason, whole.preparation)


def test_what_was_found_before_an_interruption_is_not_forgotten(tmp_path, decoded, few_at_a_time):
    folder = save(tmp_path / "a", scenes())
    (folder / "002.png").write_bytes(b"")
    Image.new("RGBA", (24, 24), (200, 30, 99, 120)).save(folder / "004.png")
    decoded.before = interrupted_at(15)
    with pytest.raises(KeyboardInterrupt):
        pack(folder)
    decoded.before = lambda: None
    found = pack(folder)
    assert found.damaged == {2: "is empty"}
    assert found.remarks == {"transparent: laid over white": 1}


@needs_fork
def test_a_killed_run_goes_on(tmp_path, decoded, few_at_a_time):
    folder = save(tmp_path / "a", scenes())
    decoded.seconds = 0.02
    child = fork.Process(target=pack, args=(folder,))
    child.start()
    until(lambda: sum(decoded().values()) >= 12)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    killed_at = sum(decoded().values())
    assert killed_at < N
    found = pack(folder)
    assert sum(decoded().values()) <= N + 2 * 1 + 2 * 3  # two looks at the first; a chunk, and one not yet kept
    np.testing.assert_array_equal(found.pixels, np.stack(scenes()).transpose(0, 3, 1, 2))


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def tell_digest(folder, queue):
    found = pack(folder)
    queue.put((os.getpid(), hashlib.sha256(found.pixels.tobytes()).hexdigest()))


@needs_fork
def test_of_two_processes_one_decodes_and_both_get_the_same(tmp_path, decoded):
    folder, queue = save(tmp_path / "a", scenes()), fork.Queue()
    decoded.seconds = 0.02
    first, second = (fork.Process(target=tell_digest, args=(folder, queue)) for _ in range(2))
    first.start()
    until(lambda: sum(decoded().values()) >= 2)
    second.start()
    told = dict(queue.get(timeout=30) for _ in range(2))
    for child in (first, second):
        child.join()
    by = {line.split()[0] for line in decoded.log.read_text().splitlines()}
    assert by == {str(first.pid)}
    assert set(told) == {first.pid, second.pid}
    expected = np.ascontiguousarray(np.stack(scenes()).transpose(0, 3, 1, 2))
    assert set(told.values()) == {hashlib.sha256(expected).hexdigest()}


# --- What changed -------------------------------------------------------------------------------------------------


def pixels_by_name(folder):
    found = load_images(folder)
    names = [*found.train_names, *found.test_names]
    return dict(zip(names, torch.cat([found.train, found.test]).permute(0, 2, 3, 1).numpy().tolist(), strict=True))


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the time of a change can be set by hand")
def test_a_file_of_the_same_size_and_time_is_noticed(tmp_path):
    folder = save(tmp_path / "a", scenes(), "bmp")
    before = pixels_by_name(folder)
    path = folder / "005.bmp"
    status = path.stat()
    Image.fromarray(scene(77)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = pixels_by_name(folder)
    assert after == {**before, "005.bmp": scene(77).tolist()}
    assert after != before


def test_what_was_prepared_before_a_change_is_removed(tmp_path, fresh_runs):
    folder, other = save(tmp_path / "a", scenes()), save(tmp_path / "b", scenes())
    before = load_images(folder)
    load_images(other)
    load_images(folder, image_size=16)
    assert len(caches(fresh_runs)) == 3
    save(folder, [scene(50)])  # 000.png is another picture
    after = load_images(folder)
    assert len(caches(fresh_runs)) == 3  # the other folder's, the other size's, and the new one
    assert after.sha256 != before.sha256
    assert torch.equal(before.train, before.train.clone())  # what is mapped stays readable


def test_files_that_come_and_go_are_noticed(tmp_path):
    folder = save(tmp_path / "a", scenes())
    pixels_by_name(folder)
    Image.fromarray(scene(77)).save(folder / "004b.png")
    more = pixels_by_name(folder)
    assert len(more) == N + 1
    assert more["004b.png"] == scene(77).tolist()
    (folder / "000.png").unlink()
    fewer = pixels_by_name(folder)
    assert fewer == {name: pixels for name, pixels in more.items() if name != "000.png"}


def spoil_pixels(cache, content):
    path = kept_pixels(cache)
    path.write_bytes(content(path.read_bytes()))


DAMAGES = {
    "truncated": lambda folder: spoil_pixels(folder, lambda whole: whole[:-100]),
    "garbage of another size": lambda folder: spoil_pixels(folder, lambda _: b"garbage" * 100),
    "garbage of the same size": lambda folder: spoil_pixels(folder, lambda whole: b"x" * len(whole)),
    "longer": lambda folder: spoil_pixels(folder, lambda whole: whole + b"x"),
    "without pixels": lambda folder: kept_pixels(folder).unlink(),
    "without facts": lambda folder: (folder / "pack.json").unlink(),
    "no JSON": lambda folder: (folder / "pack.json").write_text("{"),
    "empty facts": lambda folder: (folder / "pack.json").write_text(""),
    "other facts": lambda folder: (folder / "pack.json").write_text(
        json.dumps({**json.loads((folder / "pack.json").read_text()), "shape": [1, 1, 1, 1]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(damage, tmp_path, fresh_runs):
    folder = save(tmp_path / "a", scenes())
    first = pack(folder)
    DAMAGES[damage](caches(fresh_runs)[0])
    second = pack(folder)
    np.testing.assert_array_equal(second.pixels, np.stack(scenes()).transpose(0, 3, 1, 2))
    assert second.digest != first.digest  # what was computed of the damaged ones is not theirs
    assert pack(folder).digest == second.digest


@pytest.mark.parametrize("damage", ["garbage", "truncated pixels", "another key"])
def test_a_damaged_journal_is_not_believed(damage, tmp_path, fresh_runs, decoded, few_at_a_time):
    folder = save(tmp_path / "a", scenes())
    decoded.before = interrupted_at(14)
    with pytest.raises(KeyboardInterrupt):
        pack(folder)
    decoded.before = lambda: None
    cache = caches(fresh_runs)[0]
    if damage == "truncated pixels":
        os.truncate(kept_pixels(cache), 100)
    else:
        kept = json.loads((cache / "journal").read_text())
        (cache / "journal").write_text("garbage" if damage == "garbage" else json.dumps({**kept, "key": "x"}))
    np.testing.assert_array_equal(pack(folder).pixels, np.stack(scenes()).transpose(0, 3, 1, 2))


def test_writing_into_the_images_does_not_change_the_file(tmp_path, fresh_runs):
    folder = save(tmp_path / "a", scenes())
    images = load_images(folder)
    kept = images.train.clone()
    file = kept_pixels(caches(fresh_runs)[0])
    before = file.read_bytes()
    images.train.fill_(7)
    images.test.zero_()
    assert file.read_bytes() == before
    forget_images()
    assert torch.equal(load_images(folder).train, kept)
