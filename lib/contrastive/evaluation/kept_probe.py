"""A linear probe that is kept beside its encoder, so that new images can be classified."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Images
from ..settings import UserError
from ..storage.files import DamagedError
from ..storage.tensors import read_tensors, write_tensors
from ..training import Run, load_encoder
from ..training.runs import encoder_file
from .judging import Judging
from .probes import Probe, embed, fit_probe

PROBE = "probe.safetensors"
MOST_LABELS = 10_000  # that it is fitted to: more cost time, and make it hardly better
ADVICE = "Delete it; a report on the same run makes it again."  # where it cannot be used


@dataclass(frozen=True)
class KeptProbe:
    """A probe, the names of its classes, and with how many labels it was fitted."""

    probe: Probe
    classes: tuple[str, ...]
    n_labels: int

    def predict(self, features: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The likeliest class of each image and how likely it is.

        Args:
            features: float32 N x D, of the encoder that it lies beside.

        Returns:
            Names of classes; float32 N, from 0 to 1, scaled by a temperature where labels could be spared to choose it.
        """
        scores = self.probe.scores(torch.from_numpy(np.ascontiguousarray(features))) / self.probe.temperature
        certainty, predicted = scores.softmax(1).max(1)
        return [self.classes[i] for i in predicted.tolist()], certainty.numpy()


def keep_probe(run: Run, images: Images, judging: Judging) -> KeptProbe:
    """Fit a linear probe to all labels of a run's training images, or to MOST_LABELS of them, and keep it in the run's
    folder. A fifth of the labels chooses the penalty; test images are not used.

    Raises:
        RunError: when it cannot be written.
    """
    fit, choose = judging.every_label(MOST_LABELS)
    encoder = load_encoder(run).to(run.settings.runtime.device)

    def rows(index: Tensor) -> tuple[Tensor, Tensor]:
        return embed(encoder, images.train[index]), images.train_labels[index].to(encoder.mean.device)

    fitted = fit_probe(rows(fit), rows(choose), len(images.classes))
    probe = Probe(fitted.weight.cpu(), fitted.bias.cpu(), fitted.l2, fitted.temperature)
    kept = KeptProbe(probe, images.classes, len(fit) + len(choose))
    metadata = {
        "identity": encoder.run_identity, "classes": list(images.classes), "labels": kept.n_labels,
        "temperature": probe.temperature, "l2": probe.l2,
    }  # fmt: skip
    write_tensors(run.folder / PROBE, metadata, {"weight": probe.weight, "bias": probe.bias})
    return kept


def load_probe(source: Run | Path | str) -> KeptProbe | None:
    """The probe that lies beside an encoder; None where no report kept one.

    Args:
        source: the run, its folder, or its `encoder.safetensors`.

    Raises:
        UserError: when it is damaged, or of another encoder.
    """
    path = encoder_file(source).parent / PROBE
    if not path.is_file():
        return None
    try:
        metadata, tensors = read_tensors(path)
    except DamagedError as error:
        raise DamagedError(f"{error} {ADVICE}") from None
    encoder = load_encoder(source)
    if metadata.get("identity") != encoder.run_identity:
        raise UserError(f"{path} is of another encoder. {ADVICE}")
    try:
        kept = _read(metadata, tensors)
        shapes = {"weight": (len(kept.classes), encoder.out_dim), "bias": (len(kept.classes),)}
        for name, shape in shapes.items():
            own = getattr(kept.probe, name)
            if own.shape != shape or own.dtype != torch.float32 or not own.isfinite().all():
                raise ValueError(f"another {name}")
        if not 0 < kept.probe.temperature < math.inf or kept.n_labels < 1:
            raise ValueError("no temperature, or no labels")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"{path} does not hold the probe that it tells of ({type(error).__name__}). {ADVICE}"
        ) from None
    return kept


def _read(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> KeptProbe:
    probe = Probe(tensors["weight"], tensors["bias"], float(metadata["l2"]), float(metadata["temperature"]))
    return KeptProbe(probe, tuple(map(str, metadata["classes"])), int(metadata["labels"]))
