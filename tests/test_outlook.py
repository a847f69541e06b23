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
from contrastive.evaluation.arms import ARMS
from contrastive.evaluation.first_look import first_look
from contrastive.report import outlook
from contrastive.report.outlook import FIXED, Outlook
from contrastive.report.progress import Progress, about
from contrastive.sweeps.comparison import entries

NAMES = ["01_pretrain", "02_linear_eval", "03_ablations"]
COMMON = 7  # a class that is made the most frequent one
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
    assert views(NAMES[1:]) == {"02_linear_eval": sum(trained) + 3 * 2 * 256, "03_ablations": 6 * 2 * 256}
    assert views(NAMES[2:]) == {"03_ablations": 6 * 2 * 256}  # which does not pretrain
    twice = Outlook(settings.replace(ablation_seeds=2), images, NAMES).work["03_ablations"]
    assert [len(grid.parts) for grid in twice.values()] == [2 * 6]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # several at once
    assert views(NAMES) == expected | {"03_ablations": pytest.approx(0.8 * 6 * 2 * 256)}


METHODS = dict(methods="simclr,swav", encoders="cnn,resnet9", method_seeds=2, method_epochs=2, method_jobs=1)


def test_the_work_of_methods_is_that_of_their_runs_and_of_networks_from_labels(fresh_runs):
    settings, images = resolve(Settings(**SMALL, **METHODS))
    report = Outlook(settings, images, ["04_methods"])
    runs, alone = report.work["04_methods"]["runs"].parts, report.work["04_methods"]["labels alone"].parts
    ops = [operations(settings.replace(encoder=name), images) for name in ("cnn", "resnet9")]
    heavier = ops[1] / ops[0]
    assert heavier > 10
    # Of each seed SimCLR and SwAV with the one encoder, then with the other. SwAV has six small views, of 24 and 14
    views = [2, 2 + 6 * (24 / 28) ** 2, 2 * heavier, (2 + 6 * (14 / 28) ** 2) * heavier]
    assert runs == pytest.approx([2 * 256 * n for n in views] * 2, rel=0.01)
    networks = sum(labelled.recipe(settings, n, None, True)[1] * min(n, 128) for n in (100, 600)) * 2
    assert alone == pytest.approx([networks, networks * heavier] * 2, rel=0.01)
    first = entries(settings, images)[0]
    pretrain(first.of_seed(1), progress=False)
    done = Outlook(settings, images, ["04_methods"]).work["04_methods"]["runs"].parts
    assert [i for i, views in enumerate(done) if views == 0] == [4]


def operations(settings, images):
    """What the encoder computes for an image."""
    encoder = build_encoder(settings.encoder, images.format.shape, images.mean, images.std).eval()
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, *images.format.shape))
    return counter.get_total_flops()


def test_the_pace_of_methods_is_that_of_their_runs(fresh_runs):
    settings, images = resolve(Settings(**SMALL, **METHODS | dict(encoders="cnn", methods="simclr,byol")))
    report = Outlook(settings, images, ["04_methods"])
    runs, alone = (report.work["04_methods"][name] for name in ("runs", "labels alone"))
    runs.parts = [0.0, *runs.parts[1:]]  # as if the first were done
    clock = Clock(report, "04_methods")
    clock.show("timing steps", 1.0, 1.0)
    clock.show("runs", 0.5)
    assert report.left("04_methods", clock.now, 1.0) is None
    clock.show("runs")
    report.learn("04_methods", clock.now + 8.0, "runs", 1)
    clock.now += 8.0
    assert clock.left() == pytest.approx(2 * 8 + sum(alone.parts) * 8 / runs.parts[1])


def test_minutes_are_known_before_any_run(fresh_runs, monkeypatch):
    settings, images = resolve(Settings(**SMALL, **METHODS | dict(method_epochs=None, minutes=3, encoders=None)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    report = Outlook(settings, images, ["01_pretrain", "04_methods"])
    runs, alone = (report.work["04_methods"][name] for name in ("runs", "labels alone"))
    Clock(report, "01_pretrain").show("seed 0", 8.0, 8.0, 8.0)
    clock = Clock(report, "04_methods")
    networks = sum(alone.parts) * 8 / (2 * 256)
    assert clock.left() == pytest.approx(2 * 2 * 180 + networks)
    clock.show("runs", 200.0)  # which tells nothing of networks
    assert clock.left() == pytest.approx(3 * 200 + networks)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    one = Outlook(settings, images, ["04_methods"]).work["04_methods"]["runs"]
    assert sum(one.parts) == sum(runs.parts)
    several = Outlook(settings.replace(method_jobs=None), images, ["04_methods"]).work["04_methods"]["runs"]
    assert sum(several.parts) == pytest.approx(0.8 * sum(runs.parts))


def test_looking_through_another_network_counts_by_its_operations(monkeypatch):
    settings, images = resolve(Settings(preset="smoke", budgets=(100, 600)))
    monkeypatch.setattr(outlook, "why_no_general", lambda weights: "")
    encoder = build_encoder(settings.encoder, images.format.shape, images.mean, images.std)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, *images.format.shape))
    expected = (len(images.test) + 600) * outlook.FORWARD * outlook.OPERATIONS / (3 * counter.get_total_flops())

    def views(**given):
        return sum(outlook._general(settings.replace(**given), images))

    assert views() == pytest.approx(expected)
    assert views(general_size=224) == pytest.approx(4 * expected)
    assert views(general="none") == 0


def bar(step, done, total):
    return f"\r{step}:  40%|####      | {done}/{total} [00:12<00:18,  2.0s/epoch]"


class Clock:
    """Shows steps to an outlook, with seconds between them."""

    def __init__(self, report, notebook):
        self.report, self.notebook, self.now = report, notebook, 0.0

    def show(self, step, *seconds):
        """That a step begins, and that one part more is done after so many seconds each."""
        for done, took in enumerate((0.0, *seconds)):
            self.now += took
            self.report.learn(self.notebook, self.now, step, done)

    def left(self, later=0.0):
        """What is left of the report so many seconds later, but for what no training explains."""
        rest = FIXED * (len(self.report.work) - list(self.report.work).index(self.notebook) - 1)
        return self.report.left(self.notebook, self.now + later, 1.0) - rest


def test_what_is_left_is_known_once_an_epoch_was_seen_and_falls(small):
    report = Outlook(*small, NAMES)
    clock = Clock(report, "01_pretrain")
    clock.now = 5.0
    clock.show("probe on raw pixels", 3.0)  # of which nothing was planned
    clock.show("seed 0")
    assert report.left("01_pretrain", 8.0, 0.0) is None
    clock.show("seed 0", 8.0)
    later = sum(work.left(8 / (2 * 256)) for name in NAMES[1:] for work in report.work[name].values())
    assert clock.left() == pytest.approx(2 * 8 + later)
    assert clock.left(later=3.0) == pytest.approx(2 * 8 - 3 + later)
    assert clock.left(later=1e9) == pytest.approx(8 / 2 + later)  # one is on its way
    assert report.left("01_pretrain", 16.0, 0.25) == pytest.approx(2 * 8 + later + 2.75 * FIXED)
    clock.show("seed 0", 8.0, 8.0, 8.0)
    assert clock.left(later=5.0) == pytest.approx(later)
    assert report.left("02_linear_eval", 1.0, 1.0) == pytest.approx(later - 1 + FIXED)


@pytest.mark.parametrize("factor", [1, 7, 1 / 7])
def test_where_the_pace_of_views_stays_what_is_left_is_what_it_takes(small, factor):
    """However unlike the parts are, and also if another notebook is slower or faster than the first."""
    settings, images = small
    report = Outlook(settings.replace(n_seeds=2), images, NAMES)
    first = Clock(report, "01_pretrain")
    first.show("seed 0", 5.0, 5.0, 5.0)
    first.show("seed 1", 5.0, 5.0, 5.0)
    view = factor * 5 / (2 * 256)
    clock = Clock(report, "02_linear_eval")
    networks = report.work["02_linear_eval"]["network"]
    assert len(networks.parts) == 12
    assert len(set(networks.parts)) > 1
    grid = sum(work.left(view) for work in report.work["03_ablations"].values())
    for _ in range(2):
        for whom in (arm.whom for arm in ARMS.values() if arm.whom in outlook.NETWORKS):
            clock.show(whom, *(views * view for views in networks.parts[networks.done : networks.done + 2]))
            if factor > 1 / outlook.READ:  # or it looks as if it was read
                assert clock.left() == pytest.approx(sum(networks.parts[networks.done :]) * view + grid)
    assert networks.done == 12


def test_what_was_computed_before_and_is_only_read_does_not_count(small):
    report = Outlook(*small, NAMES)
    Clock(report, "01_pretrain").show("seed 0", 5.0, 5.0, 5.0)
    clock = Clock(report, "02_linear_eval")
    networks = report.work["02_linear_eval"]["network"]
    clock.show("the fine-tuned network", 0.01, 0.01)
    assert (networks.done, networks.pace, report.pace) == (2, 0, pytest.approx(5 / (2 * 256)))
    clock.show("the same network from scratch, augmented", 0.01, 60.0)
    assert networks.pace == pytest.approx(60 / networks.parts[3])


def test_looking_through_another_network_tells_nothing_of_others(small):
    report = Outlook(*small, NAMES)
    Clock(report, "01_pretrain").show("seed 0", 5.0)
    looking = report.work["02_linear_eval"]["features by "] = outlook.Work([7.0] * 100, apart=True)
    clock = Clock(report, "02_linear_eval")
    clock.show("features by mobilenetv3", *[0.5] * 30)  # of images to learn from; then of others to be judged
    clock.show("features by mobilenetv3", *[0.5] * 10)
    assert (looking.done, looking.pace, report.pace) == (40, pytest.approx(0.5 / 7), pytest.approx(5 / (2 * 256)))
    clock.show("the fine-tuned network")
    assert looking.done == 100


def test_grids_are_learnt_from_while_several_runs_end_at_once(small):
    report = Outlook(*small, NAMES)
    Clock(report, "01_pretrain").show("seed 0", 5.0)
    ((name, grid),) = report.work["03_ablations"].items()
    clock = Clock(report, "03_ablations")
    clock.now = 100.0
    clock.show(name)
    assert clock.left() == pytest.approx(grid.left(5 / (2 * 256)))  # what went before it takes nothing off
    clock.show(name, 20.0, 0.001, 20.0, 0.001)
    assert grid.done == 4
    assert clock.left() == pytest.approx(2 * 10, rel=1e-3)


def test_a_notebooks_line_tells_what_is_left(small):
    report = Outlook(*small, NAMES)
    line = Progress("01_pretrain", 10, report)
    line.write(bar("seed 0", 0, 3))
    line.started -= 30  # seconds later
    line.write("x" * 2000 + bar("seed 0", 1, 3) + bar("seed 0", 2, 3) + "\nand so on" + " " * 2000)
    assert report.pace == pytest.approx(15 / (2 * 256), rel=0.01)
    left = about(report.left("01_pretrain", line.elapsed, 0.0))
    assert re.fullmatch(
        rf"01_pretrain +0:30  about {left} left of the report  cell 0 of 10  seed 0 2 of 3", line.line()
    )


def test_of_a_run_that_was_begun_the_epochs_that_are_left_count(small):
    report = Outlook(*small, NAMES[:1])
    line = Progress("01_pretrain", 10, report)
    line.write(bar("seed 0", 2, 3))  # as it shows at once when a run is resumed
    assert report.work["01_pretrain"]["seed "].left(1.0) == 2 * 256


def test_of_a_run_that_is_done_only_the_rest_is_left(small):
    settings, images = small
    run = pretrain(settings, progress=False)
    report = Outlook(settings, images, NAMES)
    assert report.work["01_pretrain"]["seed "].left(1.0) == 0
    assert report.pace == pytest.approx(run.seconds / (3 * 2 * 256))


def test_the_first_look_is_what_a_linear_classifier_gets():
    settings, images = resolve(Settings(preset="smoke"))
    images = dataclasses.replace(images, train_labels=images.train_labels.clamp(max=COMMON))
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
    assert usual == COMMON != images.train_labels[fit[0]]
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
