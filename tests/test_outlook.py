"""How long a report will still take, and the first line that it tells."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.flop_counter import FlopCounterMode

from contrastive import Settings, pretrain, resolve
from contrastive.data import split
from contrastive.encoders import build_encoder
from contrastive.evaluation import first_look as first_look_module
from contrastive.evaluation import labelled
from contrastive.evaluation.first_look import first_look
from contrastive.report import outlook
from contrastive.report.outlook import FIXED, Outlook
from contrastive.report.progress import Progress, about

NAMES = ["01_pretrain", "02_linear_eval", "03_ablations"]
SMALL = dict(preset="smoke", base_channels=4, epochs=3, n_images=256, batch_size=64, general="none")


@pytest.fixture
def small(fresh_runs):
    return resolve(Settings(**SMALL))


def test_the_work_of_a_report_is_that_of_its_trainings(small, monkeypatch):
    settings, images = small
    trained = []

    def counted(training):
        trained.append(training.steps * training.settings.optimiser.batch_size)
        raise StopIteration  # that is enough

    monkeypatch.setattr(labelled, "train", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for n, augmented in ((100, True), (600, True), (100, False), (600, False), (100, True), (600, True)):
        with pytest.raises(StopIteration):
            labelled.classifier(settings, images, images.labelled[:n], augmented=augmented)

    def views(notebooks):
        planned = Outlook(settings, images, notebooks).work
        return {name: sum(work.left(1.0) for work in planned[name].values()) for name in notebooks}

    # From scratch, with augmentations and without, and fine-tuned; six policies, one seed, an epoch each, as wide as
    # the report's encoder
    expected = {"01_pretrain": 3 * 2 * 256, "02_linear_eval": sum(trained), "03_ablations": 6 * 2 * 256}
    assert views(NAMES) == expected
    assert views(["03_ablations"]) == {"03_ablations": (6 + 3) * 2 * 256}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # several at once
    assert views(NAMES) == expected | {"03_ablations": pytest.approx(0.8 * 6 * 2 * 256)}


def test_looking_through_another_network_counts_by_its_operations(monkeypatch):
    settings, images = resolve(Settings(preset="smoke", budgets=(100, 600)))
    monkeypatch.setattr(outlook, "why_no_general", lambda weights: "")
    encoder = build_encoder(settings.encoder, images.format.shape, images.mean, images.std)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, *images.format.shape))
    expected = (len(images.test) + 600) * outlook.FORWARD * outlook.OPERATIONS / (3 * counter.get_total_flops())

    def views(**given):
        return outlook._general(settings.replace(**given), images).left(1.0)

    assert views() == pytest.approx(expected)
    assert views(general_size=224) == pytest.approx(4 * expected)
    assert views(general="none") == 0


def bar(step, done, total, rate):
    return f"\r{step}:  40%|####      | {done}/{total} [00:12<00:18,  {rate}]"


def test_what_is_left_is_known_once_an_epoch_was_seen_and_falls(small):
    settings, images = small
    report = Outlook(settings, images, NAMES)
    assert report.left("01_pretrain", 5.0, 0.0) is None
    report.learn("01_pretrain", 5.0, "probe on raw pixels", 2, 10.0)  # of which nothing was planned
    report.learn("01_pretrain", 5.0, "seed 0", 0, 0.0)
    assert report.left("01_pretrain", 5.0, 0.0) is None
    report.learn("01_pretrain", 6.0, "seed 0", 1, 8.0)
    view = 8 / (2 * 256)
    later = [sum(work.left(view) for work in report.work[name].values()) for name in NAMES[1:]]
    assert report.left("01_pretrain", 6.0, 0.25) == pytest.approx(2 * 8 + sum(later) + 2.75 * FIXED)
    assert report.left("01_pretrain", 9.0, 0.25) == pytest.approx(2 * 8 - 3 + sum(later) + 2.75 * FIXED)
    report.learn("01_pretrain", 30.0, "seed 0", 3, 8.0)
    assert report.left("01_pretrain", 31.0, 0.5) == pytest.approx(sum(later) + 2.5 * FIXED)
    assert report.left("02_linear_eval", 1.0, 0.0) == pytest.approx(sum(later) - 1 + 2 * FIXED)
    assert report.left("03_ablations", 0.0, 1.0) == pytest.approx(later[1])


def test_what_is_left_follows_the_networks_and_the_grids_that_it_sees(small):
    """The machine may be busier by then, or other work cheaper than was thought."""
    settings, images = small
    report = Outlook(settings, images, NAMES)
    line = Progress("01_pretrain", 10, report)
    line.write(bar("seed 0", 3, 3, "2.0epoch/s"))
    view = 0.5 / (2 * 256)
    assert report.seconds_of_view == pytest.approx(view)
    line = Progress("02_linear_eval", 30, report)
    networks, whom = report.work["02_linear_eval"]["network"], "the fine-tuned network"
    assert networks.parts == 6
    line.write(bar(whom, 1, 2, "100it/s"))  # read, as it was trained before
    assert (networks.done, report.seconds_of_view) == (1, pytest.approx(view))
    line.write(bar(whom, 2, 2, "30s/it"))
    line.write(bar("the same network from scratch, augmented", 0, 2, "?it/s"))
    line.write(bar("the same network from scratch, augmented", 1, 2, "40s/it"))
    assert networks.done == 3
    view = 40 / networks.views
    grid = sum(work.left(view) for work in report.work["03_ablations"].values())
    left = report.left("02_linear_eval", line.elapsed, 0.5)
    assert left == pytest.approx(3 * 40 + grid + 1.5 * FIXED, abs=1)
    assert re.search(
        rf"  0:0\d  about {about(left + FIXED / 2)} left of the report  cell 0 of 30  the same", line.line()
    )
    line = Progress("03_ablations", 10, report)
    (name, grid), *others = report.work["03_ablations"].items()
    assert not others
    line.write(bar(name, 2, 6, "11s/it"))
    assert report.left("03_ablations", line.elapsed, 1.0) == pytest.approx(4 * 11, abs=1)
    assert report.left("03_ablations", 1e9, 1.0) == pytest.approx(4 * 11 / 2)


def test_each_seed_has_networks_of_its_own(small):
    settings, images = small
    report = Outlook(settings.replace(n_seeds=2), images, NAMES)
    networks = report.work["02_linear_eval"]["network"]
    assert networks.parts == 12
    for _ in range(2):
        for whom in outlook.NETWORKS:
            for done in range(3):
                report.learn("02_linear_eval", 1.0, whom, done, 1.0)
    assert networks.done == 12


def test_of_a_run_that_was_begun_the_epochs_that_are_left_count(small):
    report = Outlook(*small, NAMES[:1])
    line = Progress("01_pretrain", 10, report)
    line.write(bar("seed 0", 2, 3, "?epoch/s"))  # as it shows at once when a run is resumed
    assert report.work["01_pretrain"]["seed "].left(1.0) == 2 * 256


def test_of_a_run_that_is_done_only_the_rest_is_left(small):
    settings, images = small
    run = pretrain(settings, progress=False)
    report = Outlook(settings, images, NAMES)
    assert report.work["01_pretrain"]["seed "].left(1.0) == 0
    assert report.seconds_of_view == pytest.approx(run.seconds / (3 * 2 * 256))


def test_the_first_look_is_what_a_linear_classifier_gets():
    settings, images = resolve(Settings(preset="smoke"))
    said = first_look(settings, images)
    n, pixels, n_judged, random, guessed = re.fullmatch(
        r"First look: with ([\d,]+) labels, a linear classifier gets ([\d.]+) % of ([\d,]+) validation images right "
        r"from raw pixels, and ([\d.]+) % from a network that has learnt nothing yet \(random weights\); always "
        r"guessing the most frequent class gets ([\d.]+) %\. Pretraining has to beat all of these\.",
        said,
    ).groups()
    splits = split(images, settings.data.n_images, settings.runtime.seed)
    fit, judged = splits.rest[:1000], splits.validation[:2000]
    assert (int(n.replace(",", "")), int(n_judged)) == (len(fit), len(judged))
    x, x_judged = (images.train[i].flatten(1).numpy() / 255 for i in (fit, judged))
    theirs = LogisticRegression(max_iter=1000).fit(x, images.train_labels[fit])
    assert float(pixels) == pytest.approx(100 * theirs.score(x_judged, images.train_labels[judged]), abs=3)
    assert 50 < float(random) < 100
    usual = np.bincount(images.train_labels[fit]).argmax()
    assert float(guessed) == pytest.approx(100 * (images.train_labels[judged] == usual).float().mean().item(), abs=0.05)


def test_of_large_images_the_first_look_sees_fewer(monkeypatch):
    settings, images = resolve(Settings(preset="smoke"))
    for name, value in (("SMALL", 28 * 28 // 10), ("LEAST", 150)):
        monkeypatch.setattr(first_look_module, name, value)
    said = first_look(settings, images)
    assert "with 150 labels" in said
    assert "of 198 validation images" in said  # a tenth of 2,000, as of the pixels


def test_without_labels_the_first_look_says_why_there_is_none():
    settings, images = resolve(Settings(preset="smoke"))
    images = dataclasses.replace(images, train_labels=torch.full_like(images.train_labels, -1))
    assert re.fullmatch(r"First look: .*label.*", first_look(settings, images))
