"""Checkpoints that are damaged or hostile, locks, and being asked to stop."""

import io
import multiprocessing
import os
import pickle
import shutil
import signal
import time
import zipfile

import pytest
import torch

from contrastive import Settings, UserError, load_encoder, pretrain
from contrastive.training.checkpoint import PREVIOUS, STATE, STATE_FORMAT, load_state, save_state, seal, unseal
from contrastive.storage.files import DamagedError
from contrastive.training.runs import Pause, load_method

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
    from contrastive.training.loop import Training

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
        return os.system, ("touch executed",)


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
def test_a_hostile_checkpoint_is_one_line(stopped, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = stopped
    HOSTILE[kind](folder / STATE)
    (folder / PREVIOUS).unlink()
    if kind == "moments that take no memory":  # the same numbers as moments of zero: harmless
        assert pretrain(SMOKE, progress=False).folder == folder
    else:
        with pytest.raises(UserError, match=r"state\.pt"):
            pretrain(SMOKE, progress=False)
    assert not (tmp_path / "executed").exists()


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
