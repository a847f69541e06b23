"""What the evaluation's page shows of single images: which are on the map, with what is said of each."""

import dataclasses

import numpy as np
import pytest
import torch

from contrastive import Settings, load_images, pretrain
from contrastive.evaluation import Findings, diagnostics, evaluate, how_judged, probes
from contrastive.evaluation.kept_probe import keep_probe
from contrastive.evaluation.label_errors import label_errors
from contrastive.report import map_section
from contrastive.report.map_section import IMAGENET, OWN, RANDOM, image_map, label_next, mapped, spaces, suspects

from .few_images import images_of, without_test
from .made_up import findings, judged, some_right, tiny_general
from .test_cross_validation import SMOKE, few_digits

SETTINGS = SMOKE.replace(budgets=(36,))


def of(judging_, right=None):
    """Findings of these judged images."""
    n = len(judging_.labels)
    own = findings(right or {"linear": {50: some_right(n, 0.7)}}, judging_.labels.numpy(), 50)
    return dataclasses.replace(own, judging=judging_)


def test_judged_images_come_first_and_then_those_without_a_label():
    images = without_test(90, labelled=60)
    f = of(dataclasses.replace(judged(images.train_labels[:60]), images=images, index=images.labelled,
                               pixels=images.train[:60]))  # fmt: skip
    m = mapped(images, f, 80)
    assert m.places[:60].tolist() == list(range(60))
    assert m.judged.tolist() == [*range(60), *[-1] * 20]
    assert set(m.places[60:].tolist()) <= set(range(60, 90))
    assert len(set(m.places.tolist())) == 80
    assert torch.equal(m.pixels, images.train[m.places])
    assert torch.equal(m.labels, images.train_labels[m.places])
    assert torch.equal(mapped(images, f, 80).places, m.places)
    few = mapped(images, f, 30)
    assert (len(few.places), int((few.judged < 0).sum())) == (30, 0)
    assert len(mapped(images, f, 1000).places) == 90


def test_with_a_test_split_the_map_is_of_test_images():
    images = images_of(60)
    f = of(dataclasses.replace(judged(images.test_labels, folds=0), images=images, pixels=images.test))
    m = mapped(images, f, 25)
    assert torch.equal(m.places - 60, m.judged)
    assert torch.equal(m.pixels, images.test[m.judged])
    assert torch.equal(m.labels, images.test_labels[m.judged])
    assert len(m.places) == 25


@pytest.fixture(scope="module")
def reported():
    """A run on few digits in groups, and what was found."""
    images = few_digits(groups=torch.arange(90) // 3)
    run = pretrain(SETTINGS, progress=False, images=images)
    own = how_judged(images, run.settings)
    return run, images, Findings([evaluate(run, images, progress=False)], own, 36), keep_probe(run, images, own)


def test_a_map_says_of_judged_images_what_held_out_classifiers_say_and_of_others_what_the_kept_probe_says(
    reported, monkeypatch
):
    run, images, f, kept = reported
    shown = {}
    monkeypatch.setattr(map_section, "explore", lambda *args, **named: shown.update(args=args, **named))
    monkeypatch.setattr(diagnostics, "map_2d", lambda features, seed: features[:, :2].cpu().numpy())
    image_map(run, images, f, kept, 80)
    pixels, points, labels, probabilities, classes, nearest = shown["args"]
    m = mapped(images, f, 80)
    assert torch.equal(pixels, m.pixels)
    assert torch.equal(labels, m.labels)
    assert torch.equal(probabilities[:60], f.evaluations[0].probabilities)
    h = probes.embed(map_section.load_encoder(run), m.pixels[60:])
    assert probabilities[60:].allclose(kept.probe.probabilities(h), atol=1e-5)
    assert list(points) == [OWN, RANDOM]
    assert all(p.shape == (80, 2) for p in points.values())
    assert classes == images.classes
    assert shown["groups"] == [images.group_names[images.groups[i]] for i in m.places.tolist()]
    # The nearest by cosine, without the image itself
    own = torch.nn.functional.normalize(probes.embed(map_section.load_encoder(run), m.pixels), dim=1).double()
    likeness = (own @ own.T).fill_diagonal_(-2)
    for i in (0, 40, 79):
        assert set(nearest[i]) == set(likeness[i].topk(6).indices.tolist())


def test_imagenet_features_are_a_space_where_they_were_compared(reported, monkeypatch):
    run, images, f, _ = reported
    monkeypatch.setattr(map_section, "general_network", lambda *args: tiny_general())
    assert list(spaces(run, images, f)) == [OWN, RANDOM]
    n = len(f.judging.labels)
    other = dataclasses.replace(
        of(f.judging, {arm: {50: some_right(n, 0.7)} for arm in ("linear", "general")}), few=50
    )  # fmt: skip
    found = spaces(run, images, other)
    assert list(found) == [OWN, IMAGENET, RANDOM]
    assert found[IMAGENET](images.train[:4]).shape == (4, tiny_general().out_dim)
    assert not torch.equal(found[OWN](images.train[:4]), found[RANDOM](images.train[:4]))


@pytest.mark.parametrize("better", ["linear", "general"])
def test_label_errors_are_found_by_the_features_that_serve_better(reported, monkeypatch, better):
    run, images, f, _ = reported
    monkeypatch.setattr(map_section, "general_network", lambda *args: tiny_general())
    n, seen = len(f.judging.labels), {}

    def watched(features, labels, n_classes, groups, seed):
        seen.update(features=features, labels=labels, groups=groups)
        return label_errors(features, labels, n_classes, groups, seed)

    monkeypatch.setattr(map_section, "label_errors", watched)
    shares = {"linear": 0.7, "general": 0.7, better: 0.8}
    right = {arm: {50: some_right(n, share)} for arm, share in shares.items()}
    found, looked = suspects(run, images, dataclasses.replace(of(f.judging, right), few=50))
    assert looked.tolist() == images.labelled.tolist()
    dim = tiny_general().out_dim if better == "general" else map_section.load_encoder(run).out_dim
    assert seen["features"].shape == (60, dim)
    assert torch.equal(seen["labels"], images.train_labels[:60])
    assert torch.equal(seen["groups"], images.groups[:60])
    assert all(suspect.given != suspect.predicted for suspect in found)


def test_what_to_label_next_is_without_a_label(reported):
    run, images, *_ = reported
    chosen = label_next(run, images, 10)
    assert len(chosen) == 10
    assert all(images.train_labels[choice.index] < 0 for choice in chosen)
    digits = load_images("digits")
    run = pretrain(Settings(preset="smoke", epochs=2, base_channels=4), progress=False)
    assert label_next(run, digits, 10) == []


def test_a_wrong_label_is_among_the_suspects(reported):
    run, images, f, _ = reported
    labels = images.train_labels.clone()
    labels[7] = (labels[7] + 1) % 3
    wrong = dataclasses.replace(images, train_labels=labels)
    found, looked = suspects(run, wrong, f)
    assert 7 in [int(looked[suspect.index]) for suspect in found]
    (own,) = [suspect for suspect in found if int(looked[suspect.index]) == 7]
    assert own.given == int(labels[7]) != own.predicted
    assert np.isfinite(own.confidence)
