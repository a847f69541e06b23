"""One evaluation on its way: every arm with every number of labels, one after the other."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from ..data import Images, headline_labels
from ..encoders.general import GeneralEncoder
from ..training import Run, load_encoder, load_method, transfer_images, untrained_method
from .alike import APART, apart, can_be_told
from .arms import ARMS, Arm, Features, Subject, with_role
from .calibration import calibration_error
from .corruptions import CORRUPTIONS, corrupt
from .diagnostics import diagnose
from .joint_probe import JointProbe, fit_probes
from .judging import how_judged
from .labelled import classifier, middle_and_headline, network_budgets
from .metrics import COMPARED, KNN_K, Key, Row
from .probes import Probe, accuracy_percent, embed, fit_all, fit_probe, knn_predict

Item = TypeVar("Item")
Predictor = tuple[Tensor, Callable[[Tensor], Tensor]]  # which images it judges; probabilities of images
USUAL_K = 20  # neighbours


class Measurement:
    """One run's evaluation on its way: each method adds to `rows` and `values`. only: arms, if not all are wanted."""

    def __init__(
        self, run: Run, images: Images, general: GeneralEncoder | None, progress: bool, only: Sequence[str] = ()
    ):
        self.settings, self.images, self.progress = run.settings, images, progress
        self.seed, self.device = run.settings.runtime.seed, run.settings.runtime.device
        self.budgets, self.full = run.settings.evaluation.budgets or (), run.settings.evaluation.level == "full"
        self.judging = how_judged(images, run.settings)
        self.headline = headline_labels(self.budgets, images)
        self.n_classes, self.labels = len(images.classes), self.judging.labels.numpy()
        self.subject = Subject(
            run.settings, images, self.judging.splits().pretrain, load_method(run).to(self.device),
            load_encoder(run).to(self.device), untrained_method(run).encoder.to(self.device), general,
        )  # fmt: skip
        wanted = [arm for arm in ARMS.values() if (arm.id in only if only else self.full or not arm.full)]
        self.arms = [arm for arm in wanted if arm.serves(self.subject)]
        self.rows: list[Row] = []
        self.values: dict[str, Tensor] = {}
        self.costs: dict[str, float] = {}
        self.probabilities = torch.empty(0)
        self.at_headline: dict[str, list[Predictor]] = {}  # arm -> the classifiers of the first draw

    def add(self, key: Key, value: float, draw: int = 0) -> None:
        """Add a measurement, unless it is none: not every number is defined for all images."""
        if not math.isnan(value):
            self.rows.append(Row(key.arm, key.metric, key.labels, key.subset, self.seed, draw, value))

    def few(self, n: int) -> bool:
        """Whether n labels are a tenth of all or fewer."""
        return n <= self.images.n_labels // 10

    def bar(self, what: str, items: Sequence[Item]) -> Iterable[Item]:
        """The items, with progress."""
        return tqdm(items, desc=what, disable=not self.progress, mininterval=1, file=sys.stdout)

    def count(self, arm: str, n: int, probabilities: Tensor) -> None:
        """Count one more draw of every number that compares arms, from the class probabilities of the judged images."""
        scores = probabilities.double().cpu().numpy()
        for metric, values_of in COMPARED.items():
            values = values_of(scores, self.labels)
            if np.isnan(values).any():
                continue
            key, row = Key(metric, arm, n), torch.from_numpy(values).float()[None]
            before = self.values.get(str(key), row[:0])
            self.values[str(key)] = torch.cat([before, row])
            self.add(key, 100.0 * float(values.mean()), draw=len(before))

    @contextmanager
    def costing(self, arm: str) -> Iterator[None]:
        """Count the time spent on an arm."""
        started = time.perf_counter()
        yield
        self.costs[arm] = self.costs.get(arm, 0.0) + time.perf_counter() - started

    def features(self, arm: Arm) -> list[Features]:
        """What gives an arm's features, of each of its blocks."""
        blocks = [ARMS[name] for name in arm.joined] if arm.joined else [arm]
        return [block.features(self.subject) for block in blocks if block.features is not None]

    def probe_arms(self) -> None:
        """Linear probes on features that are given, with every budget."""
        for arm in self.arms:
            if arm.labels is None:
                with self.costing(arm.id):
                    self.probe_arm(arm)

    def probe_arm(self, arm: Arm) -> None:
        """The linear probes of one arm."""
        budgets = [n for n in self.budgets if (arm.cheap or self.few(n)) and (arm.most is None or n <= arm.most)]
        if not budgets:
            return
        used = torch.cat([task.labels for n in budgets for tasks in self.judging.tasks(n) for task in tasks])
        needed = torch.cat([used, self.judging.index]).unique()
        place = torch.full((len(self.images.train),), -1)
        place[needed] = torch.arange(len(needed))
        blocks = self.features(arm)
        with torch.no_grad():
            train = [features_of(self.images.train[needed]) for features_of in blocks]
            if self.judging.n_folds:
                judged = [x[place[self.judging.index].to(x.device)] for x in train]
            else:
                judged = [features_of(self.judging.pixels) for features_of in blocks]
        labels = self.images.train_labels[needed].to(self.device)
        tasks = [(n, draw, tasks) for n in budgets for draw, tasks in enumerate(self.judging.tasks(n))]
        parts = [(place[task.fit], place[task.choose]) for _, _, of_draw in tasks for task in of_draw]
        probes = iter(fit_probes(train, labels, parts, self.n_classes))
        for n, draw, of_draw in self.bar(f"probe on {arm.id.replace('_', ' ')}", tasks):
            scores = torch.zeros(len(self.labels), self.n_classes)
            fitted = [(task.judged, next(probes)) for task in of_draw]
            for which, probe in fitted:
                places = which.to(self.device)
                scores[which] = probe.probabilities(*(x[places] for x in judged)).cpu()
            self.count(arm.id, n, scores)
            if n == self.headline and draw == 0:
                self.at_headline[arm.id] = [(which, _predictor(blocks, probe)) for which, probe in fitted]
                if arm.id == "linear":
                    self.calibration(scores, fitted, judged)

    def calibration(
        self, scores: Tensor, fitted: list[tuple[Tensor, Probe | JointProbe]], judged: list[Tensor]
    ) -> None:
        """How far the headline probe's probabilities can be believed."""
        self.probabilities = scores.float()
        scaled = torch.zeros_like(scores)
        for which, probe in fitted:
            logits = probe.scores(*(x[which.to(self.device)] for x in judged))
            scaled[which] = (logits.cpu().double() / probe.temperature).softmax(1).float()
        for name, probabilities in (("calibration_error", scores), ("calibration_error_scaled", scaled)):
            error = calibration_error(probabilities.double().numpy(), self.labels)
            self.add(Key(name, labels=self.headline), error)

    def neighbours(self) -> None:
        """kNN on frozen features, and what can be said of them without labels."""
        tasks = self.judging.tasks(self.headline)[0]
        judged = embed(self.subject.encoder, self.judging.pixels)
        truth = self.judging.labels.to(self.device)
        banks = [embed(self.subject.encoder, self.images.train[task.labels]) for task in tasks]
        for k in (USUAL_K, *(KNN_K if self.full else ())):
            if k > USUAL_K and k > min(map(len, banks)):  # the usual one is cut to the bank
                continue
            scores = torch.zeros(len(judged), self.n_classes, device=self.device)
            for task, bank in zip(tasks, banks, strict=True):
                own, places = self.images.train_labels[task.labels].to(self.device), task.judged.to(self.device)
                scores[places] = knn_predict(bank, own, judged[places], self.n_classes, k)
            self.add(Key("accuracy" if k == USUAL_K else f"accuracy_k{k}", "knn"), accuracy_percent(scores, truth))
        for name, value in diagnose(self.subject.method, self.images.to_look_at(2000)[0].to(self.device)).items():
            self.add(Key(name), value)

    def labelled_arms(self) -> None:
        """The whole network trained on labels, of the first draw, and not with every budget: it takes long."""
        for arm in self.arms:
            if arm.labels is None:
                continue
            budgets = network_budgets(self.budgets, self.headline, bool(self.judging.n_folds))
            if not (arm.thorough or self.full):
                budgets = middle_and_headline(budgets, self.headline)
            how = arm.labels(self.subject)
            with self.costing(arm.id):
                for n in self.bar(arm.whom, [n for n in budgets if arm.most is None or n <= arm.most]):
                    scores, predictors = torch.zeros(len(self.labels), self.n_classes), list[Predictor]()
                    for task in self.judging.tasks(n)[0]:
                        model = classifier(self.settings, self.images, task.labels, **how)
                        scores[task.judged] = model.predict(self.judging.pixels[task.judged]).cpu()
                        predictors.append((task.judged, model.predict))
                    self.count(arm.id, n, scores)
                    if n == self.headline:
                        self.at_headline[arm.id] = predictors

    def held_apart(self) -> None:
        """The linear probe once more, with images that look alike held out together: if copies are all that it
        recognises, nothing is left."""
        own = self.judging
        if not own.n_folds or len(own.groups) or not can_be_told(own.labels):
            return
        features, truth = embed(self.subject.encoder, own.pixels), own.labels.to(self.device)
        scores = torch.zeros(len(truth), self.n_classes)
        place = torch.full((len(self.images.train),), -1)
        place[own.index] = torch.arange(len(truth))
        folds = list(apart(features, own.labels, own.index, own.n_folds, self.seed))
        budgets = (fold.budget(min(self.headline, len(fold.train))) for fold in folds)
        parts = [(place[fit], place[choose]) for fit, choose in budgets]
        for fold, probe in zip(folds, fit_all(features, truth, parts, self.n_classes), strict=True):
            scores[fold.held] = probe.probabilities(features[fold.held]).cpu()
        self.count(APART, self.headline, scores)

    def majority(self) -> None:
        """What always guessing the most frequent class gives, of those that have judged images."""
        counts = torch.bincount(self.images.train_labels[self.images.labelled], minlength=self.n_classes)
        counts[torch.bincount(self.judging.labels, minlength=self.n_classes) == 0] = 0
        guess = torch.zeros(len(self.labels), self.n_classes)
        guess[:, counts.argmax()] = 1
        for metric, values_of in COMPARED.items():
            self.add(
                Key(metric, "majority_class"), 100.0 * float(values_of(guess.double().numpy(), self.labels).mean())
            )

    def corruptions(self) -> None:
        """What is left of the headline's accuracies on corrupted judged images."""
        truth = self.judging.labels
        of_arm: dict[str, list[float]] = {arm: [] for arm in with_role("corrupted") if arm in self.at_headline}
        for name in self.bar("corrupted images", list(CORRUPTIONS)):
            corrupted = corrupt(name, self.judging.pixels, self.seed)
            for arm, found in of_arm.items():
                scores = torch.zeros(len(truth), self.n_classes)
                for which, predict in self.at_headline[arm]:
                    scores[which] = predict(corrupted[which]).cpu()
                found.append(accuracy_percent(scores, truth))
                self.add(Key("accuracy", arm, subset=name), found[-1])
        for arm, found in of_arm.items():
            self.add(Key("accuracy", arm, subset="corrupted"), statistics.fmean(found))

    def transfer(self) -> None:
        """Linear probes on other images, with all of their labels."""
        other = transfer_images(self.settings)
        known = other.labelled
        order = known[torch.randperm(len(known), generator=Generator().manual_seed(self.seed))]
        choose, fit = order[: len(order) // 5], order[len(order) // 5 :]
        labels, test_labels = other.train_labels.to(self.device), other.test_labels.to(self.device)
        for arm in with_role("transferred"):
            (features_of,) = self.features(ARMS[arm])
            train = features_of(other.train)
            probe = fit_probe((train[fit], labels[fit]), (train[choose], labels[choose]), len(other.classes))
            self.add(Key("accuracy", arm, subset="transfer"), probe.accuracy(features_of(other.test), test_labels))


def _predictor(blocks: list[Features], probe: Probe | JointProbe) -> Callable[[Tensor], Tensor]:
    return lambda x: probe.probabilities(*(features_of(x) for features_of in blocks))
