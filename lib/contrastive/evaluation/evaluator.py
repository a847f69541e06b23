"""What a run's features are worth: probes over label budgets, beside their controls."""

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Images
from ..encoders.general import GeneralEncoder
from ..processor import keep_freed_memory
from ..settings import METHODS, EvaluationSettings
from ..storage.cache import memo_record
from ..storage.tensors import hash_tensors
from ..training import Run, load_encoder, transfer_images
from .general import general_network
from .measurement import Measurement
from .metrics import Row


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one run.

    rows: every measurement, percent where it is an accuracy. headline: number of labels that a report leads with.
    probabilities: of the headline probe, float32, one row for each judged image. values: for each number that compares
    arms, such as linear_accuracy@600, the values of the judged images (see `per_image`) with each draw of labels:
    float32, draws x images. costs: seconds that each arm took. seconds: that all of it took.
    """

    rows: list[Row]
    headline: int
    probabilities: Tensor
    values: dict[str, Tensor]
    costs: dict[str, float]
    seconds: float
    encoder_unchanged: bool


def measuring_version() -> list[int]:
    """Versions of what measures a run: raised when the same weights come to give other numbers."""
    return [EvaluationSettings.VERSION, METHODS["supervised"].Parameters.VERSION]


def evaluate(run: Run, images: Images, progress: bool = True, only: Sequence[str] = ()) -> Evaluation:
    """Measure a run's frozen encoder and its controls on the judged images; or load what was measured before.

    only: arms, if not all are wanted, nor what is measured beside them, such as nearest neighbours.
    """
    settings, encoder = run.settings.evaluation, load_encoder(run)
    runtime = run.settings.runtime
    general = general_network(settings, images, runtime.device, runtime.precision)
    decisive = {
        "version": measuring_version(),
        "run": run.settings.identity,
        "encoder": hash_tensors(encoder.state_dict()),
        **settings.decisive(),
        "general": None if general is None else general.identity,
        # other data may come to have that name
        "transfer": None if settings.transfer is None else transfer_images(run.settings).sha256,
        **({"only": sorted(only)} if only else {}),
    }

    def compute() -> dict[str, object]:
        found = _evaluate(run, images, general, progress, only)
        values = {f"values/{name}": tensor for name, tensor in found.values.items()}
        rows = [list(astuple(row)) for row in found.rows]
        facts = ("headline", "seconds", "encoder_unchanged", "probabilities", "costs")
        return {**{name: getattr(found, name) for name in facts}, "rows": rows, **values}

    kept = memo_record("evaluation", decisive, compute, "evaluating a run")
    values = {name.removeprefix("values/"): kept.pop(name) for name in list(kept) if name.startswith("values/")}
    return Evaluation(values=values, rows=[Row(*row) for row in kept.pop("rows")], **kept)


def _evaluate(
    run: Run, images: Images, general: GeneralEncoder | None, progress: bool, only: Sequence[str]
) -> Evaluation:
    started = time.perf_counter()
    keep_freed_memory()
    e = Measurement(run, images, general, progress, only)
    before = hash_tensors(e.subject.encoder.state_dict())
    e.probe_arms()
    if not only:
        e.neighbours()
    e.labelled_arms()
    if not only:
        e.held_apart()
    e.majority()
    if e.full and not only:
        e.corruptions()
    if run.settings.evaluation.transfer is not None and not only:
        e.transfer()
    unchanged = hash_tensors(e.subject.encoder.state_dict()) == before
    spent = time.perf_counter() - started
    return Evaluation(e.rows, e.headline, e.probabilities, e.values, e.costs, spent, unchanged)


def most_confused(probabilities: Tensor, labels: Tensor, n_classes: int) -> tuple[list, np.ndarray]:
    """The mistakes, surest first, as (index, true, predicted, probability); and counts, true x predicted."""
    sure, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[sure[wrong].argsort(descending=True)]
    rows = [(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in order]
    counts = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return rows, counts.view(n_classes, n_classes).numpy()
