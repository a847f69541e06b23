"""Checkpoints that are damaged or hostile, locks, and being asked to stop."""

import io
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from contrastive import Settings, UserError, load_encoder, pretrain
from contrastive.checkpoint import PREVIOUS, STATE, STATE_FORMAT, load_state, save_state, seal, unseal
from contrastive.files import DamagedError, atomic_write, locked, printable, read_json, read_lines, say, write_json
from contrastive.pretrain import Pause, load_method
from contrastive.settings import RunError
from contrastive.signals import Stop

SMOKE = Settings(preset="smoke", epochs=3, width=4, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A runs folder in which a run was killed after its seventh step, and the bytes that it should end in."""
    child = multiprocessing.get_context("spawn").Process(
        target=killed_after, args=(7, runs := tmp_path_factory.mktemp("runs"))
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return runs, (pretrain(SMOKE, progress=False).folder / "encoder.safetensors").read_bytes()


@pytest.fixture
def stopped(killed, fresh_runs):
    """The folder of a run that was killed, with two checkpoints; and the bytes that it should end in."""
    shutil.copytree(killed[0], fresh_runs)
    (folder,) = (path for path in fresh_runs.iterdir() if path.is_dir())
    return folder, killed[1]


def killed_after(steps, runs):
    """Train until a number of steps, then be killed."""
    from contrastive.training import Training

    os.environ["CONTRASTIVE_RUNS"] = str(runs)
    advance, taken = Training.advance, []

    def counted(self, position):
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        taken.append(1)
        advance(self, position)

    Training.advance = counted
    pretrain(SMOKE, progress=False)


def damage(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_killed_run_goes_on_where_it_was(stopped):
    folder, bits = stopped
    assert (load_state(folder)["position"]["epoch"], load_state(folder)["position"]["step"]) == (1, 3)
    assert (pretrain(SMOKE, progress=False).folder / "encoder.safetensors").read_bytes() == bits


@pytest.mark.parametrize("cut", [False, True])
def test_with_the_newest_damaged_the_one_before_is_used_and_it_is_said(stopped, capsys, cut):
    folder, bits = stopped
    if cut:
        (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-100])
    else:
        damage(folder / STATE)
    assert load_state(folder)["position"]["step"] == 2
    assert f"NOTE: {folder / STATE} is damaged" in capsys.readouterr().err
    assert (pretrain(SMOKE, progress=False).folder / "encoder.safetensors").read_bytes() == bits


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_before(stopped):
    folder, _ = stopped
    before = (folder / PREVIOUS).read_bytes()
    damage(folder / STATE)
    save_state(folder, load_state(folder) | {"code": "another"})
    assert (folder / PREVIOUS).read_bytes() == before
    save_state(folder, load_state(folder))
    assert (folder / PREVIOUS).read_bytes() != before


def test_links_in_a_folder_are_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".x.new").symlink_to(tmp_path / "victim")
    atomic_write(tmp_path / "x", b"new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "x").is_symlink()


def test_with_no_checkpoint_whole_one_line_says_what_to_do(stopped):
    folder, _ = stopped
    damage(folder / STATE)
    (folder / PREVIOUS).write_bytes(b"")
    with pytest.raises(UserError, match=rf"state\.pt is damaged.*Delete {folder} to train the run anew"):
        pretrain(SMOKE, progress=False)


@pytest.mark.parametrize("name", ["encoder.safetensors", "history.jsonl"])
def test_a_finished_run_is_made_whole_from_its_checkpoint(fresh_runs, capsys, name):
    run = pretrain(SMOKE, progress=False)
    content = (run.folder / name).read_bytes()
    damage(run.folder / name)
    if name.startswith("encoder"):
        with pytest.raises(DamagedError, match=r"encoder\.safetensors is damaged"):
            load_encoder(run)
    assert pretrain(SMOKE, progress=False).history == run.history
    assert f"{name} is damaged" in capsys.readouterr().err
    assert (run.folder / name).read_bytes() == content
    with pytest.raises(UserError, match="no encoder"):
        load_encoder(fresh_runs / "nowhere")


class Attack:
    """Pickled, it is a command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/contrastive-was-here",)


def resealed(change):
    """A function that writes a state, changed, with a checksum that is right."""

    def write(path):
        state = torch.load(path, weights_only=True)
        change(state)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path.write_bytes(seal(buffer.getvalue()))

    return write


def compressed(path):
    old, new = zipfile.ZipFile(io.BytesIO(unseal(path.read_bytes()))), io.BytesIO()
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, old.read(entry))
    path.write_bytes(seal(new.getvalue()))


HOSTILE = {
    "a pickled command": resealed(lambda s: s.update(history=Attack())),
    "a compressed archive": compressed,
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps(Attack())),
    "weights of another shape": resealed(lambda s: s["method"].update({"head.0.weight": torch.zeros(1)})),
    "moments of 10^12 numbers": resealed(lambda s: s["optimizer"][0].update(exp_avg=torch.zeros(1).expand(10**12))),
    "moments that take no memory": resealed(
        lambda s: [m.update(exp_avg=torch.zeros(1).expand(m["exp_avg"].shape)) for m in s["optimizer"].values()]
    ),
    "moments of one kind": resealed(lambda s: s["optimizer"][0].pop("exp_avg")),
    "moments of no parameter": resealed(lambda s: s["optimizer"].update({99: {}})),
    "an epoch from nowhere": resealed(lambda s: s["position"].update(epoch=7)),
    "an epoch after the last": resealed(
        lambda s: (s["position"].update(epoch=4, step=0), s.update(history=[{"epoch": i + 1} for i in range(4)]))
    ),
    "an order of 10^12 images": resealed(
        lambda s: s["position"].update(order=torch.zeros(1, dtype=torch.int64).expand(10**12))
    ),
    "sums of 10^12 numbers": resealed(lambda s: s["position"].update(sums=torch.zeros(1).expand(10**12))),
    "seconds that are none": resealed(lambda s: s["position"].update(seconds=float("nan"))),
    "a history of no numbers": resealed(lambda s: s["history"][0].update(loss=float("nan"))),
    "a format that is none": resealed(lambda s: s.update(format=torch.zeros(3))),
    "a step from nowhere": resealed(lambda s: s["position"].update(step=4)),
    "an order that leaves images out": resealed(lambda s: s["position"]["order"].fill_(0)),
    "a generator of no kind": resealed(lambda s: s["position"].update(draws=torch.zeros(3, dtype=torch.uint8))),
    "a history of words": resealed(lambda s: s["history"][0].update(loss="<b>")),
    "nothing": resealed(lambda s: [s.pop(k) for k in list(s) if k != "format"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_one_line(stopped, kind):
    folder, _ = stopped
    HOSTILE[kind](folder / STATE)
    (folder / PREVIOUS).unlink()
    if kind == "moments that take no memory":  # the same numbers as moments of zero: harmless
        assert pretrain(SMOKE, progress=False).folder == folder
    else:
        with pytest.raises(UserError, match=r"state\.pt"):
            pretrain(SMOKE, progress=False)
    assert not os.path.exists("/tmp/contrastive-was-here")


@pytest.mark.parametrize(("change", "said"), [(dict(format=STATE_FORMAT - 1), "version"), (dict(settings="{}"), "run")])
def test_checkpoints_of_other_versions_and_runs_are_refused(fresh_runs, change, said):
    run = pretrain(SMOKE, progress=False)
    resealed(lambda s: s.update(change))(run.folder / STATE)
    with pytest.raises(UserError, match=f"of another {said}"):
        load_method(run)


def test_a_checkpoint_is_what_torch_reads(fresh_runs):
    state = torch.load(pretrain(SMOKE, progress=False).folder / STATE, weights_only=True)
    assert {"method", "optimizer", "position", "history", "settings", "data", "code"} <= set(state)
    assert {"epoch", "step", "order", "draws", "sums"} <= set(state["position"])


def test_json_files_tell_damage(tmp_path):
    data = {"a": [1, 0.1, "x"], "b": {"c": None}}
    write_json(tmp_path / "x", data)
    assert read_json(tmp_path / "x") == data
    for content in (b"", b"{}", b"[]", b"[" * 100_000, b"\xff", (tmp_path / "x").read_bytes().replace(b"0.1", b"0.2")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DamagedError, match=str(tmp_path / "x")):
            read_json(tmp_path / "x")
        with pytest.raises(DamagedError):
            read_lines(tmp_path / "x", 1)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "y")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    atomic_write(tmp_path / "x", b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=rf"the disk that holds {tmp_path} is full \(.* MB free\)"):
        atomic_write(tmp_path / "x", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# --- Two at once ------------------------------------------------------------------------------------------------


HOLD = """
import sys, time
from pathlib import Path
from contrastive.files import locked
with locked(Path(sys.argv[1]), "training it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds):
    """Another process that holds the lock of a path."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_waits_and_says_for_whom(tmp_path, capsys):
    holder = hold(tmp_path / "run", 4)
    with locked(tmp_path / "run", "training it"):
        assert holder.wait(5) == 0
    said = capsys.readouterr().err
    assert f"NOTE: waiting until process {holder.pid} on " in said
    assert ", training it since 20" in said


def test_a_dead_holder_holds_nothing(tmp_path, capsys):
    holder = hold(tmp_path / "run", 100)
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with locked(tmp_path / "run", "training it"):
        assert time.monotonic() - started < 1
    assert capsys.readouterr().err == ""


def test_a_lock_that_cannot_be_had_is_one_line():
    with pytest.raises(RunError, match="cannot write"), locked(Path("/dev/null/run"), "training it"):
        pass


# --- Signals and time -------------------------------------------------------------------------------------------


def test_the_first_signal_waits_and_the_second_does_not():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), Stop():
        signal.raise_signal(signal.SIGINT)  # after the last look
    with Stop() as stop:
        for _ in range(2):  # as a terminal that is closed sends them
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        stop.signal = 0


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_slow_checkpoints_are_further_apart(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pause = Pause(30.0)
    for seconds, over in ((29.9, False), (30.0, True)):
        now[0] = seconds
        assert pause.is_over() is over
    with pause:
        now[0] += 2.0  # so much that a pause of 30 s would be too short
    for seconds, over in ((32 + 199.0, False), (32 + 200.0, True)):
        now[0] = seconds
        assert pause.is_over() is over
    assert Pause(0).is_over()


def test_hostile_text_is_inert_in_a_terminal(capsys):
    assert printable("a\x1b[31m\u202eb\nc é中") == r"a\x1b[31m\u202eb\nc é中"
    say("two\nlines")
    assert capsys.readouterr().err == "NOTE: two\\nlines\n"
