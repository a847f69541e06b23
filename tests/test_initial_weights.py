"""Pretraining that goes on from other weights: a run's, ImageNet's, or those of a file."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from contrastive import Settings, UserError, load_encoder, load_images, pretrain, resolve
from contrastive.encoders import build_encoder, initial, zoos
from contrastive.encoders.weight_files import hub_file
from contrastive.evaluation import Findings, evaluate, how_judged
from contrastive.evaluation.arms import ARMS, Subject
from contrastive.evaluation.labelled import recipe
from contrastive.report.pretraining import first_weights_sentence
from contrastive.report.tables import linear_checks
from contrastive.training import initial_method, load_method, start, untrained_method
from contrastive.training.runs import ENCODER

from .trainings import begun

TINY = dict(epochs=1, base_channels=2, n_images=128, batch_size=64, budgets=(50,), general="none")
LITE0 = dict(encoder="efficientnet_lite0", n_images=32, batch_size=16, epochs=1, precision="float32")
COLOUR = torch.randint(0, 256, (4, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def before():
    """A run whose weights others go on from."""
    return pretrain(Settings(preset="smoke", **TINY, seed=7), progress=False)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """torchvision's ResNet-18, in eval mode, and a file of its weights."""
    path = tmp_path_factory.mktemp("weights") / "resnet18-f37072fd.pth"
    torch.manual_seed(0)
    network = models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), path)
    return network, path


def reason(**parameters):
    """The one line that such settings get before anything starts."""
    with pytest.raises(UserError) as caught:
        resolve(Settings(preset="smoke", **TINY | parameters))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(**parameters):
    """The name of a run with such settings."""
    return resolve(Settings(preset="smoke", **TINY | parameters))[0].run_name


def same(a, b):
    """Whether two networks have the same tensors."""
    mine, others = a.state_dict(), b.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(x, others[name]) for name, x in mine.items())


# --- Where training starts ----------------------------------------------------------------------------------------


def test_a_runs_encoder_goes_on_with_its_features_and_its_normalisation(before):
    encoder, own = begun(**TINY, initial_weights=str(before.folder)).method.encoder, load_encoder(before)
    assert same(encoder, own)
    bright = dataclasses.replace(load_images("digits"), mean=(0.7,), std=(0.1,))
    settings, _ = resolve(Settings(preset="smoke", **TINY, initial_weights=str(before.folder / ENCODER)), bright)
    training = start(settings, bright.format, bright.train[:64], bright.train_labels[:64])
    assert own.mean.item() == pytest.approx(0.3, abs=0.1)
    assert same(training.method.encoder, own)
    assert torch.equal(training.make_views.parts[0][0].mean, own.mean)
    assert not same(begun(**TINY).method.encoder, own)


@pytest.mark.parametrize(("method", "part"), [("byol", "target_encoder"), ("mocov2", "key_encoder")])
def test_target_networks_start_from_the_same_weights(before, method, part):
    training = begun(**TINY, method=method, initial_weights=str(before.folder))
    assert same(getattr(training.method, part), training.method.encoder)
    assert same(training.method.encoder, load_encoder(before))


def test_resnet_goes_on_from_torchvisions_file_with_its_normalisation(resnet):
    network, path = resnet
    settings = Settings(encoder="resnet18", stem="imagenet", initial_weights=str(path)).encoder
    encoder = build_encoder(settings, (3, 40, 48), (0.1,) * 3, (0.9,) * 3)
    initial.load_initial_weights(encoder, settings)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    logits = network((COLOUR / 255 - mean) / std)
    torch.testing.assert_close(network.fc(encoder.eval()(encoder.prepare(COLOUR))), logits, atol=1e-4, rtol=1e-4)
    assert logits.std(0).mean() > 1e-3


def test_imagenets_weights_are_one_start_whether_named_or_given_as_a_file(tmp_path):
    copy = tmp_path / "copy.pth"
    shutil.copy(zoos.find_lite0(), copy)
    found = [resolve(Settings(preset="smoke", initial_weights=w, **LITE0))[0] for w in ("imagenet", str(copy))]
    assert found[0].identity == found[1].identity
    assert [settings.encoder.input_size for settings in found] == [112, 112]
    assert found[0].encoder.initial_weights == "imagenet"
    trainings = [begun(initial_weights=w, **LITE0) for w in ("imagenet", str(copy))]
    assert same(trainings[0].method, trainings[1].method)
    torch.testing.assert_close(trainings[1].method.encoder.mean, torch.tensor([127 / 255] * 3))


def test_downloaded_weights_are_those_of_their_file(resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = Settings(encoder="resnet18", stem="imagenet", initial_weights="imagenet").encoder
    with pytest.raises(UserError, match=r"torchvision:resnet18 are not on this disk.*or give a file of them\.$"):
        initial.weights_file(settings)
    path = hub_file(models.ResNet18_Weights.DEFAULT.url)
    path.parent.mkdir(parents=True)
    shutil.copy(resnet[1], path)
    monkeypatch.setattr(zoos, "check_download", lambda path: None)
    encoders = []
    for weights in ("imagenet", str(resnet[1])):
        own = settings.model_copy(update={"initial_weights": weights})
        found = own.model_copy(update=initial.found_weights(own, (3, 40, 48), False))
        encoders.append(build_encoder(found, (3, 40, 48), (0.1,) * 3, (0.9,) * 3))
        initial.load_initial_weights(encoders[-1], found)
        assert found.decisive()["initial_sha256"] == initial._sha256(path)
    assert same(*encoders)
    with pytest.raises(UserError, match="Set stem=imagenet for colour images, or take encoder=torchvision:resnet18"):
        type(encoders[0]).check(settings, (1, 40, 48))


def test_an_encoder_of_a_library_goes_on_from_a_run_at_the_size_it_had(fresh_runs):
    first = pretrain(Settings(preset="smoke", input_size=40, **LITE0), progress=False)
    training = begun(initial_weights=str(first.folder), **LITE0)
    assert training.method.encoder.size == training.settings.encoder.input_size == 40
    assert same(training.method.encoder, load_encoder(first))


# --- Names --------------------------------------------------------------------------------------------------------


def test_content_names_a_run_wherever_it_lies(before, tmp_path):
    shutil.copytree(before.folder, tmp_path / "moved")
    shutil.copy(before.folder / ENCODER, tmp_path / "renamed.safetensors")
    places = [before.folder, before.folder / ENCODER, tmp_path / "moved", tmp_path / "renamed.safetensors"]
    assert len({named(initial_weights=str(place)) for place in places}) == 1
    other = pretrain(Settings(preset="smoke", **TINY, seed=8), progress=False)
    assert len({named(), named(initial_weights=str(before.folder)), named(initial_weights=str(other.folder))}) == 3


def test_random_weights_name_no_run_anew():
    assert named(initial_weights="random") == named()
    encoder = json.loads(resolve(Settings(preset="smoke", **TINY))[0].identity)["encoder"]
    assert encoder == {"version": 1, "name": "cnn", "base_channels": 2}
    lite0 = json.loads(resolve(Settings(preset="smoke", **LITE0))[0].identity)["encoder"]
    assert lite0 == {"version": 1, "name": "efficientnet_lite0"}


def test_a_path_means_the_same_wherever_a_notebook_starts(before, monkeypatch):
    monkeypatch.chdir(before.folder.parent)
    settings, _ = resolve(Settings(preset="smoke", **TINY, initial_weights=before.folder.name))
    assert settings.encoder.initial_weights == str(before.folder / ENCODER)
    assert resolve(settings)[0] == settings


# --- Files that cannot serve --------------------------------------------------------------------------------------


def test_a_file_that_does_not_fit_names_its_first_tensor_and_both_shapes(before, resnet, tmp_path):
    said = reason(base_channels=4, initial_weights=str(before.folder))
    assert "another network than cnn" in said
    assert "; body.0.weight is 2x1x3x3 and has to be 4x1x3x3. " in said
    with pytest.raises(UserError, match=r"; conv1\.weight is 64x3x7x7 and has to be 64x1x3x3\. "):
        resolve(Settings(preset="smoke", encoder="resnet18", initial_weights=str(resnet[1])))
    state = {name: x for name, x in resnet[0].state_dict().items() if name != "layer2.0.bn1.bias"}
    torch.save(state | {"more": torch.zeros(2)}, tmp_path / "less.pth")
    settings = Settings(encoder="resnet18", stem="imagenet", initial_weights=str(tmp_path / "less.pth")).encoder
    with pytest.raises(UserError, match=r"; layer2\.0\.bn1\.bias is missing\. "):
        initial.found_weights(settings, (3, 40, 48), False)
    torch.save(resnet[0].state_dict() | {"more": torch.zeros(2)}, tmp_path / "more.pth")
    settings = settings.model_copy(update={"initial_weights": str(tmp_path / "more.pth")})
    with pytest.raises(UserError, match="; more is not part of it"):
        initial.found_weights(settings, (3, 40, 48), False)


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.pth").write_bytes(pickle.dumps({"conv1.weight": Harmful()}))
    assert "net.pth holds code, not only tensors" in reason(initial_weights="net.pth")
    torch.save(nn.Linear(2, 2), "net.pt")
    assert "net.pt holds code" in reason(initial_weights="net.pt")
    assert not Path("harmed").exists()


def test_what_is_no_file_of_weights_is_one_line(tmp_path, before):
    assert "there are none for encoder cnn. Choose resnet18, " in reason(initial_weights="imagenet")
    assert "Choose random or imagenet, or give a file" in reason(initial_weights="imagenets")
    assert f"there is no {tmp_path / ENCODER}. Choose" in reason(initial_weights=str(tmp_path))
    (tmp_path / "x.safetensors").write_bytes(b"no")
    assert "is no file of weights, or damaged" in reason(initial_weights=str(tmp_path / "x.safetensors"))
    assert "no regular file" in reason(initial_weights="/dev/null")


def test_a_checksum_that_is_asked_for_has_to_be_the_files(before, tmp_path):
    right = resolve(Settings(preset="smoke", **TINY, initial_weights=str(before.folder)))[0].encoder.initial_sha256
    assert named(initial_weights=str(before.folder), initial_sha256=right) == named(initial_weights=str(before.folder))
    told = reason(initial_weights=str(before.folder), initial_sha256="0" * 64)
    assert f"has the checksum {right[:8]}..., so these are other weights" in told
    assert "is of no use with initial_weights=random" in reason(initial_sha256=right)


def test_a_file_that_is_replaced_after_it_was_read_is_not_taken(tmp_path, before):
    path = tmp_path / "x.safetensors"
    shutil.copy(before.folder / ENCODER, path)
    settings, images = resolve(Settings(preset="smoke", **TINY, initial_weights=str(path)))
    shutil.copy(pretrain(Settings(preset="smoke", **TINY, seed=8), progress=False).folder / ENCODER, path)
    with pytest.raises(UserError, match="so these are other weights"):
        initial_method(settings, images.format, continued=True)


def test_a_finished_run_is_found_when_its_first_weights_are_gone(before, tmp_path, fresh_runs):
    path = tmp_path / "x.safetensors"
    shutil.copy(before.folder / ENCODER, path)
    run = pretrain(Settings(preset="smoke", **TINY, initial_weights=str(path)), progress=False)
    path.unlink()
    assert pretrain(run.settings, progress=False).history == run.history
    asked = dict(initial_weights=str(path), initial_sha256=run.settings.encoder.initial_sha256)
    assert pretrain(Settings(preset="smoke", **TINY, **asked), progress=False).folder == run.folder
    for more in ({}, asked | {"seed": 1}):  # nothing is known of it; or there is no such run yet
        with pytest.raises(UserError, match=r"there is no .*x\.safetensors\. Choose"):
            pretrain(Settings(preset="smoke", **TINY | {"initial_weights": str(path)} | more), progress=False)
    assert same(load_method(run).encoder, load_encoder(run))


# --- What it is compared with -------------------------------------------------------------------------------------


def test_controls_and_networks_from_scratch_have_random_weights(before):
    run = pretrain(Settings(preset="smoke", **TINY, initial_weights=str(before.folder)), progress=False)
    images, usual = load_images("digits"), begun(**TINY).method.encoder
    own, steps = recipe(run.settings, 50, None, True)
    scratch = start(own, images.format, images.train[:50], images.train_labels[:50], steps).method.encoder
    assert same(scratch, usual)
    assert same(untrained_method(run).encoder.body, usual.body)
    assert not same(usual.body, load_encoder(before).body)


def test_a_network_is_fine_tuned_as_it_was_pretrained():
    settings, images = resolve(Settings(preset="smoke", initial_weights="imagenet", **LITE0))
    encoder = initial_method(settings, images.format, continued=True).encoder.eval()
    own, _ = recipe(settings, 32, encoder, True)
    tuned = start(own, images.format, images.train[:32], images.train_labels[:32], 1, encoder).method.encoder.eval()
    x = tuned.prepare(images.test[:4])
    torch.testing.assert_close(tuned(x), encoder(x))
    scratch = initial_method(recipe(settings, 32, None, True)[0], images.format).encoder
    assert (scratch.size, tuned.size) == (112, 112)
    assert not same(scratch.body, encoder.body)


def subject(run):
    """What the evaluation of a run measures."""
    images, method = load_images("digits"), load_method(run)
    return Subject(run.settings, images, torch.arange(9), method, method.encoder, untrained_method(run).encoder)


def test_the_encoder_before_pretraining_is_measured_where_it_is_not_random(before, tmp_path, fresh_runs, capsys):
    path, arm = tmp_path / "x.safetensors", ARMS["initial_encoder"]
    shutil.copy(before.folder / ENCODER, path)
    run = pretrain(Settings(preset="smoke", **TINY, initial_weights=str(path)), progress=False)
    found = evaluate(run, load_images("digits"), progress=False, only=("initial_encoder", "linear", "random_encoder"))
    features = ARMS["linear"].features(subject(before))(load_images("digits").test)
    torch.testing.assert_close(arm.features(subject(run))(load_images("digits").test), features)
    scores = {name.partition("_accuracy")[0] for name in found.values if name.endswith("_accuracy@50")}
    assert scores >= {"initial_encoder", "linear", "random_encoder"}
    images = load_images("digits")
    checks = linear_checks(Findings([found], how_judged(images, run.settings), 50), images)
    beaten = {item["name"] for item in checks if item["name"].startswith("pretrained against")}
    assert beaten == {"pretrained against initial encoder", "pretrained against random encoder"}
    assert arm.serves(subject(run))
    assert not arm.serves(subject(before))
    path.unlink()
    assert "not measured" not in capsys.readouterr().err
    assert not arm.serves(subject(run))
    assert "the encoder before pretraining is not measured: initial_weights=" in capsys.readouterr().err


def test_a_reader_is_told_where_pretraining_started(before):
    settings = resolve(Settings(preset="smoke", **TINY, initial_weights=str(before.folder)))[0]
    told = first_weights_sentence(settings)
    assert str(before.folder / ENCODER) in told
    assert settings.encoder.initial_sha256[:8] in told
    assert first_weights_sentence(resolve(Settings(preset="smoke", **TINY))[0]) == ""
