"""What a run's features are worth: probes over label budgets, beside their controls."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from ..data import Images, headline_labels, split
from ..processor import keep_freed_memory
from ..settings import METHODS, EvaluationSettings
from ..storage.cache import memo_record
from ..storage.tensors import hash_tensors
from ..training import Run, load_encoder, load_method, transfer_images, untrained_method
from .arms import ARMS, Subject, with_role
from .calibration import calibration_error, macro_auc
from .corruptions import CORRUPTIONS, corrupt
from .diagnostics import diagnose
from .labelled import classifier, spaced
from .metrics import KNN_K, Key, Row
from .probes import Probe, accuracy_percent, embed, fit_probe, knn_predict

Item = TypeVar("Item")
USUAL_K = 20  # neighbours


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one run.

    rows: every measurement, percent where it is an accuracy. headline: number of labels that a report leads with.
    probabilities: of the headline probe, float32, one row for each test image. right: for each accuracy that compares
    arms, such as linear_accuracy@600, which test images were right with each draw of labels: uint8, draws x images.
    seconds: that it took.
    """

    rows: list[Row]
    headline: int
    probabilities: Tensor
    right: dict[str, Tensor]
    seconds: float
    encoder_unchanged: bool


def measuring_version() -> list[int]:
    """Versions of what measures a run: raised when the same weights come to give other numbers."""
    return [EvaluationSettings.VERSION, METHODS["supervised"].Parameters.VERSION]


def evaluate(run: Run, images: Images, progress: bool = True) -> Evaluation:
    """Measure a run's frozen encoder and its controls on the test images; or load what was measured before."""
    settings, encoder = run.settings.evaluation, load_encoder(run)
    decisive = {
        "version": measuring_version(),
        "run": run.settings.identity,
        "encoder": hash_tensors(encoder.state_dict()),
        **settings.decisive(),
        # other data may come to have that name
        "transfer": None if settings.transfer is None else transfer_images(run.settings).sha256,
    }

    def compute() -> dict[str, object]:
        found = _evaluate(run, images, progress)
        right = {f"right/{name}": tensor for name, tensor in found.right.items()}
        rows = [list(astuple(row)) for row in found.rows]
        facts = {name: getattr(found, name) for name in ("headline", "seconds", "encoder_unchanged", "probabilities")}
        return {**facts, "rows": rows, **right}

    kept = memo_record("evaluation", decisive, compute, "evaluating a run")
    right = {name.removeprefix("right/"): kept.pop(name) for name in list(kept) if name.startswith("right/")}
    return Evaluation(right=right, rows=[Row(*row) for row in kept.pop("rows")], **kept)


def _evaluate(run: Run, images: Images, progress: bool) -> Evaluation:
    started = time.perf_counter()
    keep_freed_memory()
    evaluator = _Evaluator(run, images, progress)
    before = hash_tensors(evaluator.subject.encoder.state_dict())
    evaluator.probe_arms()
    evaluator.neighbours()
    evaluator.labelled_arms()
    if evaluator.full:
        evaluator.corruptions()
    if run.settings.evaluation.transfer is not None:
        evaluator.transfer()
    e = evaluator
    unchanged = hash_tensors(e.subject.encoder.state_dict()) == before
    return Evaluation(e.rows, e.headline, e.probabilities, e.right, time.perf_counter() - started, unchanged)


class _Evaluator:
    """One run's evaluation on its way: each method adds to `rows` and `right`."""

    def __init__(self, run: Run, images: Images, progress: bool):
        self.settings, self.images, self.progress = run.settings, images, progress
        self.seed, self.device = run.settings.runtime.seed, run.settings.runtime.device
        self.budgets, self.full = run.settings.evaluation.budgets or (), run.settings.evaluation.level == "full"
        self.headline = headline_labels(self.budgets, images.n_labels)
        n_images, draws = run.settings.data.n_images or 0, run.settings.evaluation.label_draws
        balanced = run.settings.evaluation.budget_draw == "balanced"
        self.splits = [split(images, n_images, self.seed, draw, balanced) for draw in range(draws)]
        self.subject = Subject(
            run.settings, images, self.splits[0], load_method(run).to(self.device), load_encoder(run).to(self.device),
            untrained_method(run).encoder.to(self.device),
        )  # fmt: skip
        self.arms = [arm for arm in ARMS.values() if (self.full or not arm.full) and arm.serves(self.subject)]
        self.n_classes = len(images.classes)
        self.train_labels, self.test_labels = images.train_labels.to(self.device), images.test_labels.to(self.device)
        self.rows: list[Row] = []
        self.right: dict[str, Tensor] = {}
        self.probabilities = torch.empty(0)
        self.at_headline: dict[str, Callable[[Tensor], Tensor]] = {}  # arm -> probabilities of images

    def add(self, key: Key, value: float, draw: int = 0) -> None:
        """Add a measurement."""
        self.rows.append(Row(key.arm, key.metric, key.labels, key.subset, self.seed, draw, value))

    def few(self, n: int) -> bool:
        """Whether n labels are a tenth of all or fewer: of more, two draws would hold much the same."""
        return n <= self.images.n_labels // 10

    def labels(self, n: int) -> list[tuple[Tensor, Tensor]]:
        """The draws of n labels: indices to train on and to choose with."""
        return [part.budget(n) for part in (self.splits if self.few(n) else self.splits[:1])]

    def bar(self, what: str, items: Sequence[Item]) -> Iterable[Item]:
        """The items, with progress."""
        return tqdm(items, desc=what, disable=not self.progress, mininterval=1, file=sys.stdout)

    def count(self, arm: str, n: int, scores: Tensor) -> None:
        """Count one more draw of an accuracy, from the scores of the test images."""
        key, right = Key("accuracy", arm, n), (scores.argmax(1) == self.test_labels).to(torch.uint8).cpu()[None]
        before = self.right.get(str(key), right[:0])
        self.right[str(key)] = torch.cat([before, right])
        self.add(key, 100.0 * right.sum().item() / right.numel(), draw=len(before))

    def probe_arms(self) -> None:
        """Linear probes on features that are given, with every budget."""
        for arm in self.arms:
            budgets = [n for n in self.budgets if arm.cheap or self.few(n)]
            if arm.features is None or not budgets:
                continue
            features_of = arm.features(self.subject)
            needed = torch.cat([torch.cat(parts) for n in budgets for parts in self.labels(n)]).unique()
            place = torch.full((len(self.images.train),), -1)
            place[needed] = torch.arange(len(needed))
            with torch.no_grad():
                train, test = features_of(self.images.train[needed]), features_of(self.images.test)
            labels = self.train_labels[needed.to(self.device)]
            for n in self.bar(f"probe on {arm.id.replace('_', ' ')}", budgets):
                for draw, parts in enumerate(self.labels(n)):
                    fit, choose = (place[part].to(self.device) for part in parts)
                    probe = fit_probe((train[fit], labels[fit]), (train[choose], labels[choose]), self.n_classes)
                    self.count(arm.id, n, probe.scores(test))
                    if n == self.headline and draw == 0:
                        self.at_headline[arm.id] = lambda x, f=features_of, p=probe: p.probabilities(f(x))  # type: ignore
                        if arm.id == "linear":
                            self.calibration(probe, test)
            del train, test  # before the next arm needs as much

    def calibration(self, probe: Probe, test: Tensor) -> None:
        """How far the headline probe's probabilities can be believed; and its AUC."""
        scores, labels = probe.scores(test).cpu().double(), self.images.test_labels.numpy()
        self.probabilities = scores.softmax(1).float()
        plain, scaled = scores.softmax(1).numpy(), (scores / probe.temperature).softmax(1).numpy()
        self.add(Key("calibration_error", labels=self.headline), calibration_error(plain, labels))
        self.add(Key("calibration_error_scaled", labels=self.headline), calibration_error(scaled, labels))
        if not math.isnan(auc := macro_auc(plain, labels)):
            self.add(Key("macro_auc", labels=self.headline), auc)

    def neighbours(self) -> None:
        """kNN on frozen features, and what can be said of them without labels."""
        parts = torch.cat(self.splits[0].budget(self.headline))
        bank, test = (embed(self.subject.encoder, x) for x in (self.images.train[parts], self.images.test))
        labels = self.train_labels[parts.to(self.device)]
        for k in (USUAL_K, *(KNN_K if self.full else ())):
            if k == USUAL_K or k <= len(bank):  # the usual one is cut to the bank
                right = accuracy_percent(knn_predict(bank, labels, test, self.n_classes, k), self.test_labels)
                self.add(Key("accuracy" if k == USUAL_K else f"accuracy_k{k}", "knn"), right)
        some = self.images.test[self.images.test_sample(2000)]
        for name, value in diagnose(self.subject.method, some.to(self.device)).items():
            self.add(Key(name), value)

    def labelled_arms(self) -> None:
        """The whole network trained on labels, of the first draw, and not with every budget: it takes long."""
        for arm in self.arms:
            if arm.labels is None:
                continue
            how = arm.labels(self.subject)
            for n in self.bar(arm.whom, spaced(self.budgets, self.headline)):
                model = classifier(self.settings, self.images, torch.cat(self.splits[0].budget(n)), **how)
                self.count(arm.id, n, model.predict(self.images.test))
                if n == self.headline:
                    self.at_headline[arm.id] = model.predict
        counts = torch.bincount(self.images.train_labels[self.images.train_labels >= 0])
        right = (self.images.test_labels == counts.argmax()).sum().item()
        self.add(Key("accuracy", "majority_class"), 100.0 * right / len(self.images.test_labels))

    def corruptions(self) -> None:
        """What is left of the headline's accuracies on corrupted test images."""
        of_arm: dict[str, list[float]] = {arm: [] for arm in with_role("corrupted") if arm in self.at_headline}
        for name in self.bar("corrupted images", list(CORRUPTIONS)):
            corrupted = corrupt(name, self.images.test, self.seed)
            for arm, values in of_arm.items():
                values.append(accuracy_percent(self.at_headline[arm](corrupted), self.test_labels))
                self.add(Key("accuracy", arm, subset=name), values[-1])
        for arm, values in of_arm.items():
            self.add(Key("accuracy", arm, subset="corrupted"), statistics.fmean(values))

    def transfer(self) -> None:
        """Linear probes on other images, with all of their labels."""
        other = transfer_images(self.settings)
        known = (other.train_labels >= 0).nonzero().flatten()
        order = known[torch.randperm(len(known), generator=Generator().manual_seed(self.seed))]
        choose, fit = order[: len(order) // 5], order[len(order) // 5 :]
        labels, test_labels = other.train_labels.to(self.device), other.test_labels.to(self.device)
        for arm in with_role("transferred"):
            make_features = ARMS[arm].features
            assert make_features is not None
            features_of = make_features(self.subject)
            train = features_of(other.train)
            probe = fit_probe((train[fit], labels[fit]), (train[choose], labels[choose]), len(other.classes))
            self.add(Key("accuracy", arm, subset="transfer"), probe.accuracy(features_of(other.test), test_labels))


def most_confused(probabilities: Tensor, labels: Tensor, n_classes: int) -> tuple[list, np.ndarray]:
    """The mistakes, surest first, as (index, true, predicted, probability); and counts, true x predicted."""
    sure, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[sure[wrong].argsort(descending=True)]
    rows = [(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in order]
    counts = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return rows, counts.view(n_classes, n_classes).numpy()
