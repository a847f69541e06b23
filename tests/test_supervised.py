"""Networks trained on labels: from scratch or fine-tuned, and kept."""

import pytest
import torch

from contrastive import Settings, load_encoder, load_images, pretrain, supervised
from contrastive.augment.operations import Augment
from contrastive.data.images import resolve
from contrastive.evaluation.probes import weights_hash
from contrastive.settings.model import RunError
from contrastive.methods.supervised import classifier, predict, spaced, train_classifier
from contrastive.training.loop import initial_method

SMOKE = Settings(preset="smoke", epochs=2, width=4, budgets=(50, 200), supervised_steps=10)


def test_fine_tuning_starts_from_the_pretrained_weights_and_leaves_them():
    run = pretrain(SMOKE, progress=False)
    images, encoder = load_images("digits"), load_encoder(run)
    before = weights_hash(encoder)
    data, labels = images.train[:50], images.train_labels[:50]
    model = train_classifier(run.settings.but(supervised_steps=1), data, labels, 10, encoder, augmented=False)
    assert weights_hash(encoder) == before
    start, end = (dict(m.named_parameters())["body.0.weight"] for m in (encoder, model[0]))
    assert 0 < (end - start).abs().max() < 0.01  # one step away
    scratch = train_classifier(run.settings.but(supervised_steps=1), data, labels, 10, augmented=False)
    begun = initial_method(run.settings).encoder
    assert (scratch[0].body[0].weight - begun.body[0].weight).abs().max() < 0.01
    assert predict(model, images.test[:7]).sum(1).allclose(torch.ones(7))


def test_the_network_from_scratch_is_trained_on_views_as_large_as_the_images(monkeypatch):
    images, seen = load_images("digits"), []
    real = Augment.__call__

    def watched(self, *args, **kwargs):
        seen.append(real(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(Augment, "__call__", watched)
    settings = resolve(SMOKE.but(view_size=24, supervised_steps=2))
    train_classifier(settings, images.train[:50], images.train_labels[:50], 10)
    assert {tuple(views.shape[-2:]) for views in seen} == {tuple(images.train.shape[-2:])}


def test_a_network_trained_on_labels_is_kept_and_only_the_very_same_one_is_taken(fresh_runs, monkeypatch, capfd):
    images, index = load_images("digits"), torch.arange(50)
    settings = resolve(SMOKE)
    trained = []
    real = train_classifier
    monkeypatch.setattr(supervised, "train_classifier", lambda *args: trained.append(1) or real(*args))

    def scores(settings=settings, index=index, **how):
        return predict(classifier(settings, images, index, **how), images.test)

    first = scores()
    assert torch.equal(scores(), first)
    assert len(trained) == 1
    # Each of these decides the weights; the temperature of the pretraining does not.
    scores(settings.but(temperature=0.3))
    assert len(trained) == 1
    encoder = initial_method(settings.but(seed=5)).encoder
    others = [
        scores(index=index + 1), scores(settings.but(supervised_steps=11)), scores(settings.but(seed=1)),
        scores(settings.but(augment="simclr")), scores(augmented=False), scores(pretrained=encoder),
        scores(settings.but(features="mean")),
    ]  # fmt: skip
    assert len(trained) == 8
    assert not any(torch.equal(other, first) for other in others)
    # Without augmentations it does not matter which ones the pretraining had.
    assert torch.equal(scores(settings.but(augment="simclr"), augmented=False), others[4])
    assert len(trained) == 8
    for path in (fresh_runs / "supervised").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"1234")
    assert torch.equal(scores(), first)
    assert len(trained) == 9
    assert "damaged: its checksum is wrong. The network is trained again." in capfd.readouterr().err


def test_a_network_that_diverged_is_told_of_and_not_kept(fresh_runs, monkeypatch):
    monkeypatch.setattr(supervised, "WEIGHT_DECAY", float("inf"))
    with pytest.raises(RunError, match="trained on 50 labels has weights that are not finite"):
        classifier(resolve(SMOKE), load_images("digits"), torch.arange(50))
    assert not list((fresh_runs / "supervised").glob("*.safetensors"))


def test_networks_are_trained_with_numbers_of_labels_that_lie_apart():
    assert spaced((10, 50, 100, 600, 1000, 5000, 6000, 30_000, 60_000), 30_000) == [
        10,
        50,
        100,
        600,
        5000,
        30_000,
        60_000,
    ]
    assert spaced((20_000, 30_000), 30_000) == [20_000, 30_000]
    assert spaced((7,), 7) == [7]
