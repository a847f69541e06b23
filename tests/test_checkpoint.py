"""Checkpoints: killed runs of every method go on, damaged and hostile ones are told; and when they are written."""

import importlib
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

from contrastive import Settings, UserError, load_encoder, load_images, pretrain, resolve
from contrastive.settings import METHODS
from contrastive.storage.files import DamagedError
from contrastive.training import load_method, loop, run_folder
from contrastive.training.checkpoint import PREVIOUS, STATE, STATE_FORMAT, Pause, load_state, save_state, seal, unseal

from .trainings import timeless

SMOKE = Settings(preset="smoke", epochs=3, base_channels=4)
FEW = dict(preset="smoke", n_images=64, batch_size=16, epochs=3)
SMALL = dict(preset="smoke", n_images=32, batch_size=16, epochs=2, encoder="resnet18", view_size=8)
KILLED = {  # the run -> after how many steps
    "smoke": (SMOKE, 7),
    "simclr, adam": (Settings(method="simclr", base_channels=2, **FEW), 5),
    "byol, adamw": (Settings(method="byol", optimiser="adamw", weight_decay=0.1, base_channels=2, **FEW), 6),
    "mocov2, sgd": (Settings(method="mocov2", optimiser="sgd", lr=0.05, queue_size=48, base_channels=2, **FEW), 7),
    "mocov3, adamw": (Settings(method="mocov3", optimiser="adamw", base_channels=2, **FEW), 6),
    "simsiam, sgd": (Settings(method="simsiam", optimiser="sgd", lr=0.05, base_channels=2, **FEW), 7),
    "barlow_twins, adam": (Settings(method="barlow_twins", hidden_dim=64, base_channels=2, **FEW), 5),
    "vicreg, adam": (Settings(method="vicreg", hidden_dim=64, base_channels=2, **FEW), 6),
    "swav, adam": (Settings(method="swav", local_views=2, base_channels=2, **FEW), 3),  # while prototypes are frozen
    "dino, lars": (Settings(method="dino", optimiser="lars", local_views=2, base_channels=2, **FEW), 6),
    "supcon, adam": (Settings(method="supcon", base_channels=2, **FEW), 7),
    "supervised, adam": (Settings(method="supervised", base_channels=2, **FEW), 9),
    "vit_tiny, mocov3, adam": (Settings(method="mocov3", encoder="vit_tiny", depth=1, **FEW), 5),  # frozen patches
    "resnet18, byol, sgd": (Settings(method="byol", optimiser="sgd", lr=0.05, **SMALL), 3),
    "resnet18, mocov2, adam": (Settings(method="mocov2", queue_size=32, precision="float32", **SMALL), 2),
    "resnet18, simclr, adamw": (Settings(method="simclr", optimiser="adamw", **SMALL), 3),
    "resnet18, supervised, sgd": (Settings(method="supervised", optimiser="sgd", **SMALL), 2),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A runs folder in which runs were killed after some steps."""
    runs = tmp_path_factory.mktemp("runs")
    child = multiprocessing.get_context("spawn").Process(target=kill_all, args=(runs, torch.get_num_threads()))
    child.start()
    child.join()
    assert child.exitcode == 0
    return runs


def kill_all(runs, threads):
    """Train each run in a process of its own, until a number of steps, then have it killed."""
    os.environ["CONTRASTIVE_RUNS"] = str(runs)
    load_images("digits")  # once, and not in each of the processes; what they need to import, too
    importlib.import_module("torchvision.models")
    for settings, steps in KILLED.values():
        process = os.fork()
        if process == 0:
            torch.set_num_threads(threads)
            train_until_killed(settings, steps)
        assert os.waitpid(process, 0)[1] == signal.SIGKILL


def train_until_killed(settings, steps):
    """Train until a number of steps, then be killed."""
    step, taken = loop.take_step, []

    def counted(training, state):
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        taken.append(1)
        step(training, state)

    loop.take_step = counted
    Pause.is_over = lambda self: len(taken) >= steps - 1  # two checkpoints, since they take longer than these steps
    try:
        pretrain(settings, progress=False)
    finally:
        os._exit(1)  # had it been killed, this would not be reached


def copied(killed, runs, settings):
    """The folder of a killed run, copied to a runs folder of this test alone."""
    name = run_folder(resolve(settings)[0]).name
    shutil.copytree(killed / name, runs / name)
    return runs / name


@pytest.fixture(scope="module")
def whole():
    """The bytes that the usual run ends in."""
    return (pretrain(SMOKE, progress=False).folder / "encoder.safetensors").read_bytes()


@pytest.fixture
def stopped(killed, whole, fresh_runs):
    """The folder of the usual run, killed, with two checkpoints; and the bytes that it should end in."""
    return copied(killed, fresh_runs, SMOKE), whole


def damage(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_runs_of_every_method_were_killed():
    assert {settings.method.name for settings, _ in KILLED.values()} == set(METHODS)


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bits(killed, fresh_runs, monkeypatch, name):
    settings, steps = KILLED[name]
    folder, step, taken = copied(killed, fresh_runs, settings), loop.take_step, []

    def counted(training, state):
        taken.append(state.taken(training.steps_of_epoch))
        step(training, state)

    monkeypatch.setattr(loop, "take_step", counted)
    resumed = pretrain(settings, progress=False)
    of_all = settings.optimiser.epochs * (settings.data.n_images // settings.optimiser.batch_size)
    assert resumed.folder == folder
    assert taken == list(range(steps, of_all))
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / "whole"))
    run = pretrain(settings, progress=False)
    assert len(taken) == of_all - steps + of_all
    assert (folder / "encoder.safetensors").read_bytes() == (run.folder / "encoder.safetensors").read_bytes()
    assert timeless(resumed.history) == timeless(run.history)
    ours, theirs = (load_method(run).state_dict() for run in (resumed, run))  # heads, targets and queues as well
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[part]) for part, tensor in ours.items())


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
    save_state(folder, load_state(folder) | {"identity": "another"})
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
    "moments of 10^12 numbers": resealed(lambda s: s["optimiser"][0].update(exp_avg=torch.zeros(1).expand(10**12))),
    "moments that take no memory": resealed(
        lambda s: [m.update(exp_avg=torch.zeros(1).expand(m["exp_avg"].shape)) for m in s["optimiser"].values()]
    ),
    "moments of one kind": resealed(lambda s: s["optimiser"][0].pop("exp_avg")),
    "moments of one number": resealed(lambda s: s["optimiser"][0].update(exp_avg=torch.zeros(1))),
    "moments of another optimiser": resealed(
        lambda s: s.update(optimiser={i: {"momentum_buffer": m["exp_avg"]} for i, m in s["optimiser"].items()})
    ),
    "weights that are left out": resealed(lambda s: s["method"].popitem()),
    "weights of another method": resealed(lambda s: s["method"].update(queue=torch.zeros(4, 4))),
    "moments of no parameter": resealed(lambda s: s["optimiser"].update({99: {}})),
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
    "a history of an epoch that was not": resealed(lambda s: s["history"].append({**s["history"][0], "epoch": 2})),
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


def test_checkpoints_of_older_code_and_of_other_runs_are_refused(fresh_runs):
    run = pretrain(SMOKE, progress=False)
    (run.folder / "encoder.safetensors").unlink()
    for change, said in (
        (dict(identity="{}"), "of another run"),
        (dict(format=STATE_FORMAT - 1), "made by older code"),
    ):
        resealed(lambda state, change=change: state.update(change))(run.folder / STATE)
        with pytest.raises(UserError, match=rf"{said}\. Delete ") as mistake:
            pretrain(SMOKE, progress=False)
        assert str(run.folder) in str(mistake.value)


def test_a_checkpoint_is_what_torch_reads(fresh_runs):
    state = torch.load(pretrain(SMOKE, progress=False).folder / STATE, weights_only=True)
    assert {"method", "optimiser", "position", "history", "identity"} <= set(state)
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
