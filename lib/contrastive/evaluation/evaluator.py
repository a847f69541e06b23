"""What a run's features are worth: probes over label budgets, beside their controls."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Generator, Tensor
from tqdm import tqdm

from .calibration import calibration_error, macro_auc
from .corruptions import CORRUPTIONS, corrupt
from ..data.images import load_images, split
from .diagnostics import diagnose
from ..storage.files import DamagedError, atomic_write, locked, read_json, say, write_json
from ..training.runs import TRAINING_CODE, Run, code_hash, load_encoder, load_method
from .probes import Probe, embed, fit_probe, knn_predict, percent_right, weights_hash
from .scattering import scattering
from ..methods.supervised import classifier, predict, spaced
from ..training.loop import initial_method, keep_freed_memory

Item = TypeVar("Item")

TRAINED_ARMS = {
    "supervised": "CNN from scratch",
    "supervised_plain": "CNN without augmentations",
    "finetuned": "CNN fine-tuned",
}
HEADLINE_LABELS = 30_000
DRAWN_UP_TO = 5000  # labels: of more, two draws would hold much the same
NEIGHBOURS, USUAL_K = (10, 100, 200), 20
COMPONENTS = 100
SCATTERED_UP_TO = 3 * 32 * 32  # pixels and channels; of larger images the coefficients fill the memory
EVALUATION_CODE = ("probes", "calibration", "supervised", "corruptions", "scattering", "diagnostics", "evaluate")


def most_confused(probabilities: Tensor, labels: Tensor, n_classes: int) -> tuple[list, np.ndarray]:
    """The mistakes, surest first, as (index, true, predicted, probability); and counts, true x predicted."""
    sure, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[sure[wrong].argsort(descending=True)]
    rows = [(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in order]
    counts = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return rows, counts.view(n_classes, n_classes).numpy()


# --- The evaluation of a run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one run: metrics (percent where they are accuracies) and seconds it took.

    probabilities: of the headline probe, float32, one row per test image. headline: its number of labels.
    right: for each accuracy that compares arms, such as linear_accuracy@600, which test images were right with each
    draw of labels: uint8, draws x images.
    """

    metrics: dict[str, float]
    headline: int
    probabilities: Tensor
    right: dict[str, Tensor]
    seconds: float
    encoder_unchanged: bool


def headline_labels(budgets: tuple[int, ...]) -> int:
    """The budget that the report leads with: 30,000 labels (half of MNIST), else the largest one below, or all."""
    return max((n for n in budgets if n <= HEADLINE_LABELS), default=budgets[0])


def evaluate(run: Run, progress: bool = True) -> Evaluation:
    """Measure a run's frozen encoder and its controls on the test images; or load what was measured before."""
    settings = run.settings
    names = ("budgets", "supervised_steps", "label_draws", "evaluation", "transfer")
    asked = {name: getattr(settings, name) for name in names} | {
        "encoder": weights_hash(load_encoder(run)),
        "code": code_hash((*TRAINING_CODE, *EVALUATION_CODE)),
    }
    if settings.transfer is not None:  # other data may come to have that name
        asked["transfer_data"] = load_images(settings.transfer).sha256
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    with locked(run.folder, "evaluating it"):
        if (evaluation := _measured(run.folder, key)) is None:
            evaluation = _evaluate(run, progress)
            values = {name: v for name, v in vars(evaluation).items() if name not in ("probabilities", "right")}
            tensors = {"probabilities": evaluation.probabilities.contiguous()}
            content = save(tensors | {f"right/{name}": right for name, right in evaluation.right.items()})
            atomic_write(run.folder / "predictions.safetensors", content)
            digest = hashlib.sha256(content).hexdigest()
            write_json(run.folder / "results.json", {"key": key, "predictions": digest, "evaluation": values})
    return evaluation


def _measured(folder: Path, key: str) -> Evaluation | None:
    """The evaluation in a run's folder, if it is the one of that key, and whole."""
    try:
        saved = read_json(folder / "results.json")
        if saved["key"] != key:
            return None
        content = (folder / "predictions.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != saved["predictions"]:
            raise DamagedError(f"{folder / 'predictions.safetensors'} is damaged: its checksum is wrong.")
        tensors = load(content)
        probabilities = tensors.pop("probabilities")
        right = {name.removeprefix("right/"): tensor for name, tensor in tensors.items()}
        return Evaluation(probabilities=probabilities, right=right, **saved["evaluation"])
    except FileNotFoundError:
        return None
    except DamagedError as damage:
        say(f"{damage} The run is evaluated again.")
        return None
    except (SafetensorError, KeyError, TypeError):  # of another version
        return None


def _evaluate(run: Run, progress: bool) -> Evaluation:
    started = time.perf_counter()
    keep_freed_memory()
    evaluator = _Evaluator(run, progress)
    before = weights_hash(evaluator.encoder)
    evaluator.probe_arms()
    evaluator.neighbours()
    evaluator.trained_arms()
    if run.settings.evaluation == "full":
        evaluator.corruptions()
    if run.settings.transfer is not None:
        evaluator.transfer(run.settings.transfer)
    e = evaluator
    unchanged = weights_hash(e.encoder) == before
    seconds = time.perf_counter() - started
    return Evaluation(e.metrics, e.headline, e.probabilities, e.right, seconds, unchanged)


class _Evaluator:
    """One run's evaluation on its way: each method adds to `metrics` and `right`."""

    def __init__(self, run: Run, progress: bool):
        self.settings, self.images, self.progress = run.settings, load_images(run.settings), progress
        assert self.settings.budgets is not None
        self.budgets, self.full = self.settings.budgets, self.settings.evaluation == "full"
        self.headline = headline_labels(self.budgets)
        self.device = torch.device(self.settings.device)
        self.method = load_method(run).to(self.device)
        self.encoder = load_encoder(run).to(self.device)
        self.random_encoder = initial_method(self.settings).encoder.to(self.device)
        self.n_classes = len(self.images.classes)
        self.train_labels = self.images.train_labels.to(self.device)
        self.test_labels = self.images.test_labels.to(self.device)
        self.splits = [
            split(self.images, self.settings.n_images or 0, self.settings.seed, draw)
            for draw in range(self.settings.label_draws)
        ]
        self.metrics: dict[str, float] = {}
        self.right: dict[str, Tensor] = {}
        self.probabilities = torch.empty(0)
        self.at_headline: dict[str, Callable[[Tensor], Tensor]] = {}  # arm -> probabilities of images

    def labels(self, n: int) -> list[tuple[Tensor, Tensor]]:
        """The draws of n labels: indices to fit on and to choose with."""
        few = n <= DRAWN_UP_TO and n < len(self.images.train)
        return [part.budget(n) for part in (self.splits if few else self.splits[:1])]

    def bar(self, what: str, items: Sequence[Item]) -> Iterable[Item]:
        """The items, with progress."""
        return tqdm(items, desc=what, disable=not self.progress, mininterval=1, file=sys.stdout)

    def count(self, name: str, scores: Tensor) -> None:
        """Count one more draw of an accuracy, from the scores of the test images."""
        right = (scores.argmax(1) == self.test_labels).to(torch.uint8).cpu()[None]
        self.right[name] = torch.cat([self.right[name], right]) if name in self.right else right
        self.metrics[name] = 100.0 * self.right[name].sum().item() / self.right[name].numel()

    def probe_arms(self) -> None:
        """Linear probes on features that are given, with every budget."""
        frozen: dict[str, Callable[[Tensor], Tensor]] = {
            "linear": lambda x: embed(self.encoder, x),
            "random_encoder": lambda x: embed(self.random_encoder, x),
            "raw_pixel": lambda x: _pixels(x).to(self.device),
        }
        if self.full:
            frozen |= {"projection": lambda x: self.method.head(embed(self.encoder, x)), "pca": self.principal()}
            if self.images.train[0].numel() <= SCATTERED_UP_TO:
                frozen["scattering"] = lambda x: scattering(x).to(self.device)
        for arm, features_of in frozen.items():
            budgets = [n for n in self.budgets if n <= DRAWN_UP_TO or arm != "scattering"]  # which takes long
            if not budgets:
                continue
            needed = torch.cat([torch.cat(parts) for n in budgets for parts in self.labels(n)]).unique()
            place = torch.full((len(self.images.train),), -1)
            place[needed] = torch.arange(len(needed))
            with torch.no_grad():
                train, test = features_of(self.images.train[needed]), features_of(self.images.test)
            labels = self.train_labels[needed.to(self.device)]
            for n in self.bar(f"probe on {arm.replace('_', ' ')}", budgets):
                for draw, parts in enumerate(self.labels(n)):
                    fit, choose = (place[part].to(self.device) for part in parts)
                    probe = fit_probe((train[fit], labels[fit]), (train[choose], labels[choose]), self.n_classes)
                    self.count(f"{arm}_accuracy@{n}", probe.scores(test))
                    if n == self.headline and draw == 0:
                        self.at_headline[arm] = lambda x, f=features_of, p=probe: p.probabilities(f(x))  # type: ignore
                        if arm == "linear":
                            self.calibration(probe, test)
            del train, test  # before the next arm needs as much

    def principal(self) -> Callable[[Tensor], Tensor]:
        """Principal components of the unlabelled images, as a function of images."""
        from sklearn.decomposition import PCA

        pixels = _pixels(self.images.train[self.splits[0].pretrain]).numpy()
        pca = PCA(min(COMPONENTS, len(pixels) - 1, pixels.shape[1]), random_state=self.settings.seed).fit(pixels)
        return lambda x: torch.from_numpy(pca.transform(_pixels(x).numpy())).float().to(self.device)

    def calibration(self, probe: Probe, test: Tensor) -> None:
        """How far the headline probe's probabilities can be believed; and its AUC."""
        scores, labels = probe.scores(test).cpu().double(), self.images.test_labels.numpy()
        self.probabilities = scores.softmax(1).float()
        n, plain, scaled = self.headline, scores.softmax(1).numpy(), (scores / probe.temperature).softmax(1).numpy()
        self.metrics |= {
            f"calibration_error@{n}": calibration_error(plain, labels),
            f"calibration_error_scaled@{n}": calibration_error(scaled, labels),
        }
        if not math.isnan(auc := macro_auc(plain, labels)):
            self.metrics[f"macro_auc@{n}"] = auc

    def neighbours(self) -> None:
        """kNN on frozen features, and what can be said of them without labels."""
        parts = torch.cat(self.splits[0].budget(self.headline))
        bank, test = embed(self.encoder, self.images.train[parts]), embed(self.encoder, self.images.test)
        labels = self.train_labels[parts.to(self.device)]
        for k in (USUAL_K, *(NEIGHBOURS if self.full else ())):
            if k == USUAL_K or k <= len(bank):  # the usual one is cut to the bank
                name = "knn_accuracy" if k == USUAL_K else f"knn_accuracy_k{k}"
                self.metrics[name] = percent_right(knn_predict(bank, labels, test, self.n_classes, k), self.test_labels)
        some = self.images.test[self.images.test_sample(2000)]
        self.metrics |= diagnose(self.method, some.to(self.device), self.settings)

    def trained_arms(self) -> None:
        """The whole network trained on labels, of the first draw, and not with every budget: it takes long."""
        # Which of the first two is better depends on images and labels, and the better one is what is to be beaten
        arms: dict[str, dict[str, Any]] = {"supervised": {}, "supervised_plain": {"augmented": False}}
        if self.full:
            arms["finetuned"] = {"pretrained": self.encoder}
        for arm, how in arms.items():
            for n in self.bar(TRAINED_ARMS[arm], spaced(self.budgets, self.headline)):
                model = classifier(self.settings, self.images, torch.cat(self.splits[0].budget(n)), **how)
                self.count(f"{arm}_accuracy@{n}", predict(model, self.images.test))
                if n == self.headline:
                    self.at_headline[arm] = lambda x, m=model: predict(m, x)  # type: ignore
        counts = torch.bincount(self.images.train_labels)
        right = (self.images.test_labels == counts.argmax()).sum().item()
        self.metrics["majority_class_accuracy"] = 100.0 * right / len(self.images.test_labels)

    def corruptions(self) -> None:
        """What is left of the headline's accuracies on corrupted test images."""
        arms = [arm for arm in ("linear", "random_encoder", "supervised") if arm in self.at_headline]
        of_arm: dict[str, list[float]] = {arm: [] for arm in arms}
        for name in self.bar("corrupted images", list(CORRUPTIONS)):
            corrupted = corrupt(name, self.images.test, self.settings.seed)
            for arm in arms:
                of_arm[arm].append(percent_right(self.at_headline[arm](corrupted), self.test_labels))
                self.metrics[f"{arm}_accuracy[{name}]"] = of_arm[arm][-1]
        self.metrics |= {f"{arm}_accuracy[corrupted]": statistics.fmean(values) for arm, values in of_arm.items()}

    def transfer(self, dataset: str) -> None:
        """Linear probes on other images, with all of their labels."""
        other = load_images(dataset)
        order = torch.randperm(len(other.train), generator=Generator().manual_seed(self.settings.seed))
        choose, fit = order[: len(order) // 5], order[len(order) // 5 :]
        arms = {"linear": lambda x: embed(self.encoder, x), "random_encoder": lambda x: embed(self.random_encoder, x)}
        for arm, features_of in (arms | {"raw_pixel": lambda x: _pixels(x).to(self.device)}).items():
            train, labels = features_of(other.train), other.train_labels.to(self.device)
            probe = fit_probe((train[fit], labels[fit]), (train[choose], labels[choose]), len(other.classes))
            test_labels = other.test_labels.to(self.device)
            self.metrics[f"{arm}_accuracy[transfer]"] = probe.accuracy(features_of(other.test), test_labels)


def _pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 rows in [0, 1]."""
    return images.flatten(1).float() / 255
