"""Runs as folders: trained once, stopped and resumed, loaded, told apart; and their encoders."""

import json
import math
import shutil
import signal

import numpy as np
import pytest
import torch

from contrastive import Settings, UserError, load_encoder, load_images, pretrain, resolve
from contrastive.data import forget_images
from contrastive.losses import LOSSES
from contrastive.storage.files import DamagedError
from contrastive.storage.tensors import hash_tensors, read_tensors, write_tensors
from contrastive.training import load_method, loop, parameter_count, run_folder
from contrastive.training.runs import ENCODER, HISTORY

from .trainings import timeless

SMOKE = Settings(preset="smoke", epochs=3, base_channels=4)
TINY = Settings(preset="smoke", epochs=2, base_channels=2, n_images=128, batch_size=32)
METHODS = ("simclr", "byol", "mocov2", "supervised")


def weights(source):
    """A hash of an encoder's tensors."""
    return hash_tensors(load_encoder(source).state_dict())


def never(*args):
    raise AssertionError("a step was taken")


def test_same_seed_same_bits_and_a_finished_run_is_loaded(tmp_path, monkeypatch):
    runs = []
    for name in ("a", "b"):
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / name))
        runs.append(pretrain(SMOKE, progress=False))
    assert weights(runs[0]) == weights(runs[1])
    assert timeless(runs[0].history) == timeless(runs[1].history)
    assert weights(pretrain(SMOKE.replace(seed=1), progress=False)) != weights(runs[0])
    monkeypatch.setattr(loop, "take_step", never)
    again = pretrain(SMOKE, progress=False)
    assert (again.folder, again.history, again.seconds) == (runs[1].folder, runs[1].history, runs[1].seconds)


def test_what_decides_no_weights_is_as_it_was_asked_for_when_the_run_is_loaded(fresh_runs, monkeypatch):
    first = pretrain(TINY.replace(budgets=(50,)), progress=False)
    monkeypatch.setattr(loop, "take_step", never)
    again = pretrain(TINY.replace(budgets=(100, 200), checkpoint_seconds=5), progress=False)
    assert again.folder == first.folder
    assert again.settings.evaluation.budgets == (100, 200)
    assert again.settings.runtime.checkpoint_seconds == 5


@pytest.mark.parametrize("stop_after", [1, 4, 7, 12])  # steps; an epoch has four
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch, stop_after, number):
    def terminated(*args):
        raise TimeoutError

    whole = pretrain(SMOKE, progress=False)
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path))
    step, taken = loop.take_step, []

    def counted(training, state):
        taken.append((state.epoch, state.step))
        step(training, state)
        if len(taken) == stop_after:
            signal.raise_signal(number)  # as if it came in the middle of this step

    monkeypatch.setattr(loop, "take_step", counted)
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        with pytest.raises((KeyboardInterrupt, TimeoutError)):
            pretrain(SMOKE, progress=False)
        assert len(taken) == stop_after
        assert signal.getsignal(signal.SIGTERM) is terminated
        resumed = pretrain(SMOKE, progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [(epoch, number) for epoch in range(3) for number in range(4)]  # no step twice
    assert (resumed.folder / ENCODER).read_bytes() == (whole.folder / ENCODER).read_bytes()
    assert timeless(resumed.history) == timeless(whole.history)
    assert not (resumed.folder / "state.previous.pt").exists()


def test_a_run_is_files_that_others_can_read():
    run = pretrain(SMOKE, progress=False)
    assert json.loads((run.folder / "settings.json").read_text()) == run.settings.as_json()
    lines = [json.loads(line) for line in (run.folder / HISTORY).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0]["chance_loss"] == pytest.approx(math.log(2 * SMOKE.optimiser.batch_size - 1))
    assert {"loss", "top1", "lr", "images", "seconds"} <= set(lines[0])
    assert run.images_per_second == pytest.approx(3 * 512 / run.seconds)
    encoder = load_encoder(run.folder)
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    same = [weights(source) for source in (run, str(run.folder), run.folder / ENCODER)]
    assert {*same, hash_tensors(load_method(run).encoder.state_dict())} == {same[0]}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_can_be_loaded(name):
    settings = Settings(preset="smoke", method=name, epochs=2, base_channels=2, n_images=128, batch_size=32)
    run = pretrain(settings, progress=False)
    method = load_method(run)
    assert method.NEEDS_LABELS is (name == "supervised")
    assert not method.training
    assert not any(p.requires_grad for p in method.parameters())
    assert hash_tensors(method.encoder.state_dict()) == weights(run)
    assert parameter_count(method) > parameter_count(method.encoder) == parameter_count(load_encoder(run))
    assert [set(method.LOG) <= set(entry) for entry in run.history] == [True, True]
    assert ("chance_loss" in run.history[0]) is (name != "byol")
    assert f"-{name}-cnn-2ep-s0-" in run.folder.name


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"nt_xent"}))
def test_every_loss_trains(loss):
    history = pretrain(SMOKE.replace(loss=loss, epochs=2), progress=False).history
    assert history[-1]["loss"] < history[0]["loss"]
    assert loss.endswith("semi_hard") or history[-1]["lowest_loss"] <= history[-1]["chance_loss"]


def test_views_may_be_smaller_if_there_are_as_many_features(monkeypatch):
    run = pretrain(TINY.replace(view_size=24), progress=False)
    assert load_encoder(run).out_dim == 9 * 8
    with pytest.raises(UserError, match="Use 24 to 31"):
        pretrain(TINY.replace(view_size=20), progress=False)
    averaged = pretrain(TINY.replace(view_size=20, pool="avg", epochs=1), progress=False)
    assert averaged.settings.views.view_size == 20
    assert load_encoder(averaged).out_dim == 8


def test_an_encoder_gives_features_of_images():
    encoder, images = load_encoder(pretrain(TINY, progress=False)), load_images("digits").test[:5]
    features = encoder(encoder.prepare(images))
    assert (features.shape, features.dtype) == ((5, encoder.out_dim), torch.float32)
    torch.testing.assert_close(features[:2], encoder(encoder.prepare(images[:2])))


# --- Other data, other code, damage -------------------------------------------------------------------------------


def test_other_images_of_the_same_name_are_another_run(tmp_path, monkeypatch):
    images, path, found = load_images("digits"), tmp_path / "own.npz", []
    for shift in (0, 1):
        arrays = {"train_images": images.train + shift, "test_images": images.test}
        labels = {"train_labels": images.train_labels, "test_labels": images.test_labels}
        np.savez(path, **{name: array.squeeze().numpy() for name, array in (arrays | labels).items()})
        forget_images()
        found.append(pretrain(TINY.replace(dataset=str(path)), progress=False))
    assert found[0].folder != found[1].folder
    assert found[0].folder.name.rpartition("-")[0] == found[1].folder.name.rpartition("-")[0]
    assert weights(found[0]) != weights(found[1])


@pytest.mark.parametrize(
    "older",
    [
        lambda metadata: metadata | {"format": 1},
        lambda metadata: {name: value for name, value in metadata.items() if name != "format"},
        lambda metadata: {"settings": {"width": 32}, "code": "0123456789abcdef", "data": metadata["data"]},
    ],
)
def test_a_folder_by_older_code_is_one_line_that_says_so(fresh_runs, older):
    run = pretrain(TINY, progress=False)
    metadata, tensors = read_tensors(run.folder / ENCODER)
    write_tensors(run.folder / ENCODER, older(metadata), tensors)
    for load in (lambda: load_encoder(run.folder), lambda: load_method(run), lambda: pretrain(TINY, progress=False)):
        with pytest.raises(UserError, match=r"made by older code\. Delete .*, and train the run anew") as mistake:
            load()
        assert str(run.folder) in str(mistake.value)
        assert "\n" not in str(mistake.value)


def test_a_folder_that_holds_another_run_is_refused(fresh_runs):
    run, other = (pretrain(TINY.replace(seed=seed), progress=False) for seed in (0, 1))
    shutil.copy(other.folder / ENCODER, run.folder / ENCODER)
    with pytest.raises(UserError, match=rf"encoder in {run.folder} is of another run\. Delete that folder"):
        pretrain(TINY, progress=False)
    (run.folder / ENCODER).unlink()
    shutil.copy(other.folder / "state.pt", run.folder / "state.pt")
    with pytest.raises(UserError, match=rf"checkpoint in {run.folder} is of another run\. Delete that folder"):
        pretrain(TINY, progress=False)


@pytest.mark.parametrize("name", [ENCODER, HISTORY])
def test_a_finished_run_is_made_whole_from_its_checkpoint(fresh_runs, capsys, monkeypatch, name):
    run = pretrain(TINY, progress=False)
    content = bytearray((run.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    whole = (run.folder / name).read_bytes()
    (run.folder / name).write_bytes(content)
    if name == ENCODER:
        with pytest.raises(DamagedError, match=r"encoder\.safetensors is damaged"):
            load_encoder(run)
    monkeypatch.setattr(loop, "take_step", never)
    assert pretrain(TINY, progress=False).history == run.history
    assert f"{name} is damaged" in capsys.readouterr().err
    assert (run.folder / name).read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, tensors: tensors.pop("body.0.weight"),
        lambda metadata, tensors: tensors.update({"body.0.weight": tensors["body.0.weight"].double()}),
        lambda metadata, tensors: tensors.update({"body.0.weight": torch.zeros(1)}),
        lambda metadata, tensors: metadata.update(shape="none"),
        lambda metadata, tensors: metadata.pop("settings"),
        lambda metadata, tensors: metadata["settings"].update(base_channels=3),
        lambda metadata, tensors: metadata["settings"].update(encoder="nobody's"),
    ],
)
def test_an_encoders_file_that_does_not_hold_what_it_tells_of_is_one_line(tmp_path, change):
    metadata, tensors = read_tensors(pretrain(TINY, progress=False).folder / ENCODER)
    change(metadata, tensors)
    write_tensors(tmp_path / ENCODER, metadata, tensors)
    with pytest.raises(UserError, match=r"encoder\.safetensors") as mistake:
        load_encoder(tmp_path)
    assert "\n" not in str(mistake.value)


def test_where_there_is_no_encoder_it_is_said(tmp_path):
    with pytest.raises(UserError, match=r"no encoder at .*nowhere\. Give a finished run's folder"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no encoder"):
        load_encoder(tmp_path)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set CONTRASTIVE_RUNS"):
        pretrain(TINY, progress=False)


def test_a_run_is_found_again_after_its_images_were_moved(fresh_runs, tmp_path):
    rng = np.random.default_rng(0)
    pixels = {f"{part}_images": rng.integers(0, 256, (60, 16, 16), np.uint8) for part in ("train", "test")}
    labels = np.arange(60) % 2
    (tmp_path / "here").mkdir()
    np.savez(tmp_path / "here" / "mine.npz", **pixels, train_labels=labels, test_labels=labels)
    tiny = dict(epochs=1, base_channels=1, batch_size=16, projection_dim=2, warmup_epochs=0)
    first = pretrain(Settings(dataset=str(tmp_path / "here" / "mine.npz"), **tiny), progress=False)
    assert first.folder.name.startswith("mine_npz-simclr-cnn-1ep-s0-")
    trained = (first.folder / "encoder.safetensors").stat().st_mtime_ns
    (tmp_path / "here" / "mine.npz").rename(tmp_path / "yours.npz")
    moved = Settings(dataset=str(tmp_path / "yours.npz"), **tiny)
    assert run_folder(resolve(moved)[0]) == first.folder
    second = pretrain(moved, progress=False)
    assert (second.folder, second.history) == (first.folder, first.history)
    assert (first.folder / "encoder.safetensors").stat().st_mtime_ns == trained
    assert [path.name for path in fresh_runs.iterdir() if path.is_dir()] == [first.folder.name]
    assert run_folder(resolve(moved.replace(seed=1))[0]).name.startswith("yours_npz-")
