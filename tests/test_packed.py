"""Pictures are decoded once, to the same pixels whatever their order, the processes and the interruptions."""

import errno
import hashlib
import json
import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from contrastive import UserError
from contrastive.data import forget_images, load_images, packed, pictures, processes
from contrastive.data.pictures import FilePictures, Reading, prepare_from
from contrastive.data.trees import open_tree
from contrastive.settings import RunError

pytestmark = pytest.mark.usefixtures("fresh_runs")
N = 20
fork = multiprocessing.get_context("fork" if os.name == "posix" else None)
needs_fork = pytest.mark.skipif(os.name != "posix", reason="a process has to begin with what a test has changed")


def scene(i, height=24, width=24, channels=3):
    """A picture unlike any other, and unsymmetrical."""
    y, x = np.mgrid[:height, :width]
    layers = [(x * 3 + i * 7) % 256, (y * 5 + i) % 256, (x + 2 * y + i * 3) % 256][:channels]
    return np.stack(layers, -1).astype(np.uint8).squeeze()


def scenes(n=N, **kind):
    return [scene(i, **kind) for i in range(n)]


def save(folder, arrays, kind="png"):
    """Write arrays as files that are named in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:03}.{kind}")
    return folder


def found_in(folder, **reading):
    tree = open_tree(folder)
    return FilePictures(tree, tree.names, Reading(**reading))


def pack(folder, **reading):
    return packed.pack(found_in(folder, **reading), Reading(**reading))


def as_pillow_has_it(array, side, channels):
    """An 8-bit picture, cut about its centre to a square, as N x H x W."""
    image = Image.fromarray(array).convert("RGB" if channels == 3 else "L")
    fitted = image if image.size == (side, side) else ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(side, side, channels).transpose(2, 0, 1)


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """A function that gives how often each picture was decoded so far, by whatever process; each takes a while where
    `decoded.seconds` says so, and `decoded.before` is called first."""
    log, original = tmp_path / "decoded.log", pictures.decode

    def decode(content, *args):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {hashlib.sha256(content).hexdigest()}\n")
        counts.before()
        time.sleep(counts.seconds)
        return original(content, *args)

    def counts():
        return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()

    counts.log, counts.seconds, counts.before = log, 0, lambda: None
    monkeypatch.setattr(pictures, "decode", decode)
    return counts


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Chunks of three pictures, kept as soon as they are there, by one process."""
    monkeypatch.setattr(pictures, "CHUNK", 3)
    monkeypatch.setattr(packed, "FLUSH_SECONDS", 0)


def caches(runs):
    return sorted(runs.glob("cache/images-*"))


def kept_pixels(cache):
    """The one file of pixels in the folder of a cache."""
    (path,) = cache.glob("pixels-*")
    return path


# --- One shape for all --------------------------------------------------------------------------------------------


def test_pictures_of_one_shape_stay_as_they_are(tmp_path):
    arrays = scenes(height=20, width=28)
    found = pack(save(tmp_path / "a", arrays))
    np.testing.assert_array_equal(found.pixels, np.stack(arrays).transpose(0, 3, 1, 2))
    assert found.reason == ""


# What most are, the one that is not like them, and side and channels of what all become
MIXTURES = {
    "size": (scenes(N - 1, height=40, width=50), scene(99, 90, 31), 40, 3),
    "size and colour": (scenes(N - 1, height=40, width=50, channels=1), scene(99, 90, 61), 40, 3),
    "colour": (scenes(N - 1, channels=1), scene(99), 24, 3),
    "grey": (scenes(N - 1), scene(99, channels=1), 24, 3),
}


@pytest.mark.parametrize("place", [0, 1, 10, N - 1])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_one_picture_unlike_the_others_is_found_wherever_it_is(mixture, place, tmp_path, few_at_a_time):
    most, odd, side, channels = MIXTURES[mixture]
    arrays = [*most[:place], odd, *most[place:]]
    found = pack(save(tmp_path / "a", arrays))
    np.testing.assert_array_equal(found.pixels, [as_pillow_has_it(array, side, channels) for array in arrays])


@pytest.mark.parametrize("place", [0, 1, 10, N - 1])
def test_one_deep_picture_among_others_gets_a_window_wherever_it_is(place, tmp_path, few_at_a_time, monkeypatch):
    monkeypatch.setattr(pictures, "WINDOW_SAMPLE", 2)  # in which it may not be
    deep = np.random.default_rng(0).integers(500, 3000, (24, 24)).astype(np.uint16)
    arrays = scenes(N - 1, channels=1)
    arrays.insert(place, deep)
    found = pack(save(tmp_path / "a", arrays))
    low, high = np.percentile(deep, [0.1, 99.9])
    assert found.preparation.window == pytest.approx((low, high))
    expected = np.stack(arrays)
    expected[place] = np.clip(np.rint((deep - low) * 255 / (high - low)), 0, 255)
    assert np.abs(found.pixels[:, 0].astype(int) - expected).max() <= (expected.dtype != np.uint8)
    np.testing.assert_array_equal(np.delete(found.pixels[:, 0], place, 0), np.delete(expected, place, 0))


def test_all_that_can_be_unlike_at_once(tmp_path, few_at_a_time):
    arrays = [*scenes(8, channels=1), *scenes(8, height=50, width=34), (scene(5, 30, 30, 1).astype(np.uint16) * 100)]
    sides = {}
    for order in ([*range(17)], [*range(16, -1, -1)], np.random.default_rng(0).permutation(17).tolist()):
        found = pack(save(tmp_path / str(order[0]), [arrays[i] for i in order]))
        sides[order[0]] = found.pixels[np.argsort(order)]
        assert found.preparation.window is not None
    first, *others = sides.values()
    assert first.shape == (17, 3, 24, 24)  # 8 shorter sides are 24, one is 30 and 8 are 34
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_large_pictures_of_one_size_become_small_ones_and_the_account_says_why(tmp_path):
    arrays = scenes(N, height=150, width=100)
    found = load_images(save(tmp_path / "a", arrays))
    assert found.format.shape == (3, 96, 64)
    assert "all are larger than 64 pixels" in found.account.prepared
    assert "image_size keeps more" in found.account.prepared
    expected = [np.asarray(Image.fromarray(a).resize((64, 96), Image.Resampling.BICUBIC)) for a in arrays]
    train = [int(Path(name).stem) for name in found.train_names]
    # 150 / 1.5625 is 96: nothing is cut
    np.testing.assert_array_equal(found.train, np.stack(expected).transpose(0, 3, 1, 2)[train])


@pytest.mark.parametrize(("sides", "expected"), [
    ([10, 11, 12], 8), ([3, 4, 5], 8), ([30, 47, 90], 40), ([20, 20, 50, 70], 32), ([100, 300, 2000], 64),
])  # fmt: skip
def test_the_size_of_mixed_pictures_is_that_of_the_middle_one(sides, expected, tmp_path):
    folder = save(tmp_path / "a", [scene(i, side, side + 5 * i) for i, side in enumerate(sides)])
    found = pack(folder)
    assert found.pixels.shape[2:] == (expected, expected)
    assert f"they have {len(sides)} sizes" in found.reason
    assert f"sides of {min(sides)} to" in found.reason


def test_an_image_size_that_is_asked_for_is_given(tmp_path):
    arrays = [*scenes(4, height=40, width=60), scene(9, 100, 30)]
    found = pack(save(tmp_path / "a", arrays), image_size=80)
    np.testing.assert_array_equal(found.pixels, [as_pillow_has_it(array, 80, 3) for array in arrays])
    assert found.reason == "asked for by image_size"


@pytest.mark.parametrize("first", ["jpg", "png"])
def test_large_jpegs_and_pngs_of_one_size_are_of_one_size(first, tmp_path):
    # A JPEG of that size is decoded at a quarter of it
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(4):
        kind = ("jpg", "png")[(i + (first == "png")) % 2]
        Image.fromarray(scene(i, 512, 768)).save(folder / f"{i}.{kind}", quality=95)
    found = pack(folder)
    assert found.pixels.shape == (4, 3, 64, 96)
    assert "all are larger than 64 pixels" in found.reason


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_other_shapes_are_fitted_as_asked(fit, tmp_path):
    folder = save(tmp_path / "a", [np.full((64, 32, 3), 255, np.uint8)])
    found = pack(folder, image_size=32, fit=fit)
    assert found.preparation.fit == fit
    white = (found.pixels[0] == 255).all(axis=(0, 1))
    assert white.sum() == (16 if fit == "pad" else 32)


# --- More than 8 bits ---------------------------------------------------------------------------------------------


def ramps(n=6):
    """Pictures of 4,096 values each, from 1,000 on."""
    return [np.roll(np.arange(1000, 5096), 64 * i).reshape(64, 64).astype(np.uint16) for i in range(n)]


@pytest.mark.parametrize("window", ["auto", "1000:5095"])
def test_a_ramp_of_16_bits_keeps_its_levels(window, tmp_path):
    found = load_images(save(tmp_path / "a", ramps()), window=window)
    assert all(len(np.unique(image)) >= 250 for image in found.train)
    low, high = found.preparation.window
    assert (low, high) == pytest.approx((1000, 5095), abs=5)
    assert f"values from {low:g} to {high:g} as 0 to 255" in found.account.prepared
    number = int(Path(found.train_names[0]).stem)
    exact = (ramps()[number].astype(int) - 1000) * 255 / 4095
    assert np.abs(found.train[0, 0].numpy() - exact).max() < 1


def test_a_window_can_be_given(tmp_path):
    found = pack(save(tmp_path / "a", ramps()), window="2000:3000")
    assert found.preparation.window == (2000, 3000)
    exact = np.clip((np.stack(ramps()).astype(int) - 2000) * 255 / 1000, 0, 255)
    assert np.abs(found.pixels[:, 0] - exact).max() <= 0.5


def test_a_few_extreme_values_do_not_stretch_the_window(tmp_path):
    arrays = [np.random.default_rng(i).integers(900, 1100, (64, 64)).astype(np.uint16) for i in range(4)]
    for array in arrays:
        array[0, :2] = 0, 65535
    low, high = pack(save(tmp_path / "a", arrays)).preparation.window
    assert 800 < low < 1000 < high < 1200


# --- Damaged files ------------------------------------------------------------------------------------------------


def test_all_damaged_files_are_named_and_can_be_left_out(tmp_path):
    folder = save(tmp_path / "a", scenes())
    arrays = scenes()
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "007.png").write_bytes(b"")
    (folder / "011.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError) as error:
        load_images(folder)
    said = str(error.value)
    assert "\n" not in said
    assert re.search(r"3 files in .* cannot be read: 003\.png is truncated; 007\.png is empty; 011\.png", said)
    assert "skip_damaged=true" in said
    found = load_images(folder, skip_damaged=True)
    names = [*found.train_names, *found.test_names]
    assert sorted(names) == [f"{i:03}.png" for i in range(N) if i not in (3, 7, 11)]
    assert [name for name, _ in found.account.damaged] == ["003.png", "007.png", "011.png"]
    for name, image in zip(names, torch.cat([found.train, found.test]), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), arrays[int(name[:3])])


def test_what_could_not_be_read_for_a_moment_is_read_again(tmp_path, monkeypatch):
    arrays = scenes()
    folder = save(tmp_path / "a", arrays)
    unlucky = (folder / "007.png").read_bytes()
    real = pictures.decode

    def short_of_memory(content, *rest):
        if content == unlucky:
            raise pictures.Undecodable("needs more memory than there is")
        return real(content, *rest)

    with monkeypatch.context() as moment:
        moment.setattr(pictures, "decode", short_of_memory)
        with pytest.raises(UserError, match=r"007\.png needs more memory"):
            load_images(folder)
        assert len(load_images(folder, skip_damaged=True).account.damaged) == 1
    forget_images()
    found = load_images(folder)
    assert not found.account.damaged
    names = [*found.train_names, *found.test_names]
    image = torch.cat([found.train, found.test])[names.index("007.png")]
    np.testing.assert_array_equal(image.permute(1, 2, 0), arrays[7])


def test_of_many_damaged_files_the_first_are_named(tmp_path):
    folder = save(tmp_path / "a", scenes())
    for i in range(2, 14):
        (folder / f"{i:03}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"12 files .*002\.png is empty.*; and 2 more\."):
        load_images(folder)


def test_where_the_first_file_is_damaged_the_next_one_is_looked_at(tmp_path):
    folder = save(tmp_path / "a", scenes())
    (folder / "000.png").write_bytes(b"")
    found = pack(folder)
    assert found.damaged == {0: "is empty"}
    assert not found.pixels[0].any()
    np.testing.assert_array_equal(found.pixels[1:], np.stack(scenes()[1:]).transpose(0, 3, 1, 2))


def test_where_nothing_can_be_read_one_reason_is_given(tmp_path):
    folder = save(tmp_path / "a", scenes(3))
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 3 pictures can be read; 000\.png is empty\.$"):
        pack(folder)


# --- Several processes --------------------------------------------------------------------------------------------


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
        assert found[n].remarks == {"transparent: laid over white": 2}
    for n in (1, 2):
        np.testing.assert_array_equal(found[0].pixels, found[n].pixels)
        assert (found[0].preparation, found[0].reason) == (found[n].preparation, found[n].reason)


@pytest.fixture
def two_processes(monkeypatch):
    """Pictures are decoded by two other processes, three at a time."""
    if len(getattr(os, "sched_getaffinity", lambda _: "0")(0)) < 2:
        pytest.skip("needs two cores")
    monkeypatch.setattr(pictures, "CHUNK", 3)
    monkeypatch.setattr(pictures, "PARALLEL_FROM", 1)


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


# --- Disks --------------------------------------------------------------------------------------------------------


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


# --- Arrays -------------------------------------------------------------------------------------------------------


def test_arrays_stay_in_memory(fresh_runs):
    arrays = np.stack(scenes(12, height=96, width=96))
    found = load_images(arrays)
    expected = [as_pillow_has_it(array, 64, 3) for array in arrays]
    train, test = ([int(name.split()[-1]) for name in names] for names in (found.train_names, found.test_names))
    np.testing.assert_array_equal(found.train, np.stack(expected)[train])
    np.testing.assert_array_equal(found.test, np.stack(expected)[test])
    assert not caches(fresh_runs)


def test_deep_arrays_get_a_window(fresh_runs):
    found = load_images(np.stack(ramps(12)))
    assert all(len(np.unique(image)) >= 250 for image in found.train)
    assert found.preparation.window == pytest.approx((1000, 5095), abs=5)
    assert not caches(fresh_runs)
