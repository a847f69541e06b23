"""How long a report will still take, and the first line that it tells."""

import dataclasses
import re

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
from contrastive.report.progress import Progress
from contrastive.training import run_folder

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
    planned = Outlook(settings, images, NAMES).views
    assert planned["01_pretrain"] == 3 * 2 * 256
    assert planned["02_linear_eval"] == sum(trained)  # from scratch, with augmentations and without; fine-tuned
    # six policies, one seed, an epoch each, as wide as the report's encoder
    assert planned["03_ablations"] == 6 * 2 * 256
    assert Outlook(settings, images, ["03_ablations"]).views["03_ablations"] == (6 + 3) * 2 * 256
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # several at once
    assert Outlook(settings, images, NAMES).views["03_ablations"] == pytest.approx(0.8 * 6 * 2 * 256)


def test_looking_through_another_network_counts_by_its_operations(monkeypatch):
    settings, images = resolve(Settings(preset="smoke", budgets=(100, 600)))
    monkeypatch.setattr(outlook, "why_no_general", lambda weights: "")
    encoder = build_encoder(settings.encoder, images.format.shape, images.mean, images.std)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, *images.format.shape))
    expected = (len(images.test) + 600) * outlook.FORWARD * outlook.OPERATIONS / (3 * counter.get_total_flops())
    assert outlook._general(settings, images) == pytest.approx(expected)
    assert outlook._general(settings.replace(general_size=224), images) == pytest.approx(4 * expected)
    assert outlook._general(settings.replace(general="none"), images) == 0


def test_what_is_left_is_known_once_an_epoch_was_seen_and_falls(small):
    settings, images = small
    report = Outlook(settings, images, NAMES)
    assert report.left("01_pretrain", 5.0) is None
    report.learn("grid temperature", 2, 10.0)
    assert report.left("01_pretrain", 5.0) is None
    report.learn("seed 0", 2, 10.0)  # epochs that are left, and seconds
    view = 10 / 2 / (2 * 256)
    work = [FIXED + views * view for views in report.views.values()]
    assert report.left("01_pretrain", 0.0) == pytest.approx(sum(work))
    assert report.left("01_pretrain", 7.0) == pytest.approx(sum(work) - 7)
    assert report.left("02_linear_eval", 1e9) == pytest.approx(work[2])
    assert report.left("02_linear_eval", 1e9, of_step=33) == pytest.approx(work[2] + 33)
    assert report.left("03_ablations", 1e9) == 0
    line = Progress("02_linear_eval", 30, report)
    assert re.search(r"cell 0 of 30  about \d+ (s|min) left of the report$", line.line())


def test_of_a_run_that_was_begun_the_epochs_that_are_left_count(small):
    settings, images = small
    folder = run_folder(settings)
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("{}\n{}\n")
    assert Outlook(settings, images, NAMES).views["01_pretrain"] == 1 * 2 * 256


def test_of_a_run_that_is_done_only_the_rest_is_left(small):
    settings, images = small
    run = pretrain(settings, progress=False)
    report = Outlook(settings, images, NAMES)
    assert report.views["01_pretrain"] == 0
    assert report.seconds_of_view == pytest.approx(run.seconds / (3 * 2 * 256))


def test_the_first_look_is_what_a_linear_classifier_gets():
    settings, images = resolve(Settings(preset="smoke"))
    said = first_look(settings, images)
    n, pixels, n_judged, random = re.fullmatch(
        r"First look: with ([\d,]+) labels, a linear classifier gets ([\d.]+) % of ([\d,]+) validation images right "
        r"from raw pixels, and ([\d.]+) % from a network that has learnt nothing yet \(random weights\)\. Pretraining "
        r"has to beat both\.",
        said,
    ).groups()
    splits = split(images, settings.data.n_images, settings.runtime.seed)
    fit, judged = splits.rest[:1000], splits.validation[:2000]
    assert (int(n.replace(",", "")), int(n_judged)) == (len(fit), len(judged))
    x, x_judged = (images.train[i].flatten(1).numpy() / 255 for i in (fit, judged))
    theirs = LogisticRegression(max_iter=1000).fit(x, images.train_labels[fit])
    assert float(pixels) == pytest.approx(100 * theirs.score(x_judged, images.train_labels[judged]), abs=3)
    assert 50 < float(random) < 100


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
