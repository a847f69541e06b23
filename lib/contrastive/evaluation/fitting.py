"""Linear probes of many tasks fitted together, and how their penalties are chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import processor
from .calibration import fit_temperature
from .logistic import LEAST_DECREASE, fit_logistic
from .probe_features import centre, prepare, span

L2_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # L2 penalties on the mean loss, tried from the strongest
USUAL_L2 = 1e-2
CHOOSE_WITH = 10_000  # labels
TRIES = 50  # iterations with each penalty that is tried; the last fit goes on from there
GPU_BYTES, CPU_BYTES = 2**31, 2**24  # of what is fitted together, at most; a processor gains nothing by more
ALIKE = 1.5  # a processor fits tasks together whose numbers of images differ by that factor at most

Part = tuple[Tensor, Tensor]  # int64 indices of the images to fit on, and of those to choose a penalty with


def split_at(n: int, total: int) -> Part:
    """The part of `total` images whose first n are to fit on, and the others to choose with."""
    return torch.arange(n), torch.arange(n, total)


@dataclass(frozen=True)
class Fitted:
    """A regression on blocks of unit length, each multiplied by its number of that scale. weight: C x D; bias: C."""

    weight: Tensor
    bias: Tensor
    l2: float
    scale: int = 0
    temperature: float = 1.0


@torch.no_grad()
def fit_parts(
    blocks: Sequence[Tensor], labels: Tensor, parts: Sequence[Part], n_classes: int, scales: Sequence[Sequence[float]]
) -> list[Fitted]:
    """Fit a linear probe to each part of the images: its L2 penalty chosen by accuracy, then refitted on all of it.

    Without any images to choose with, the penalty is USUAL_L2, and the scale the first. The penalty is chosen with at
    most CHOOSE_WITH images, and scaled to the number refitted on, as a prior on the weights would be. Each scale is
    tried with its best penalty, the strongest of equals, and of scales that are as good as the best within a standard
    error the first is taken (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): with few labels
    choosing freely costs more than it gains.

    Args:
        blocks: features, each float32 N x D.
        labels: int64 N.
        parts: the images of each probe, at least one to fit on.
        n_classes: C, of the labels.
        scales: what the blocks are multiplied by when they have unit length, a number for each.
    """
    if not parts:
        return []
    device, widths = blocks[0].device, [block.shape[1] for block in blocks]
    width = sum(widths)
    factors = torch.tensor(scales, device=device).repeat_interleave(torch.tensor(widths, device=device), 1)
    factors = F.pad(factors, (0, 1), value=1.0)
    used, parts = _used([(fit.to(device), choose.to(device)) for fit, choose in parts])
    gpu = processor.on_gpu(blocks[0])
    # A processor is faster in the span of a part's images where these are few. A GPU would have to wait for the axes.
    few = [not gpu and 3 * (len(fit) + len(choose)) < 2 * width for fit, choose in parts]
    features, labels = prepare(blocks, used), labels.to(device)[used]
    found: dict[int, Fitted] = {}
    numbers = len(scales) * (width + 8 * n_classes * len(L2_PENALTIES))  # kept for each image
    for group in _groups(parts, few, (GPU_BYTES if gpu else CPU_BYTES) // (4 * numbers), math.inf if gpu else ALIKE):
        own = [parts[i] for i in group]
        of_scales = factors if len(own[0][1]) else factors[:1]
        found |= zip(group, _fit_group(features, labels, own, n_classes, of_scales, few[group[0]]), strict=True)
    return [found[i] for i in range(len(parts))]


def _used(parts: Sequence[Part]) -> tuple[Tensor, list[Part]]:
    """Rising indices of the images that any part uses, and the parts as places among these."""
    used = torch.cat([index for part in parts for index in part]).unique()
    return used, [(torch.searchsorted(used, fit), torch.searchsorted(used, choose)) for fit, choose in parts]


def _groups(parts: Sequence[Part], few: Sequence[bool], most: int, alike: float) -> Iterator[list[int]]:
    """Which parts are fitted together, by their places.

    Args:
        parts, few: as in `fit_parts`. Those that are few, or that have images to choose with, are not with others.
        most: images in a group, about, if it is of more than one part.
        alike: by what factor numbers of images may differ in a group.
    """
    size = [len(fit) + len(choose) for fit, choose in parts]
    kind = [(len(choose) > 0, is_few) for (_, choose), is_few in zip(parts, few, strict=True)]
    group: list[int] = []
    for i in sorted(range(len(parts)), key=lambda i: (kind[i], size[i])):
        if group:
            fits = size[i] * (len(group) + 1) <= most and size[i] <= alike * size[group[0]]
            if kind[i] != kind[group[0]] or not fits:
                yield group
                group = []
        group.append(i)
    if group:
        yield group


@dataclass(frozen=True)
class _Group:
    """What is fitted together: B are all tasks with the first to the last scale each.

    x: float32 B x N x (K + 1), as `fit_logistic` takes it. spread: float32 B x (K + 1). labels: int64 B x N. here: bool
    B x N, False in rows that only fill up. n_training, n_choosing: the first rows of N, and those after them. axes:
    float32 B x K x D, with which weights of x become weights of features; none where they are the same. mean: float32
    B x D, what was taken off the features, times their scale.
    """

    x: Tensor
    mean: Tensor
    spread: Tensor
    labels: Tensor
    here: Tensor
    n_training: int
    n_choosing: int
    axes: Tensor | None

    def fit(self, places: Tensor, n: int, l2: Tensor, n_classes: int, **how: Any) -> Tensor:
        """Regressions of these places of B on the first n rows. l2: B x Q. how: more that `fit_logistic` takes. Returns
        weights, B x Q x C x (K + 1)."""
        own = (self.x, self.spread, self.labels, self.here)
        x, spread, labels, here = own if len(places) == len(self.x) else (of[places] for of in own)
        share = here[:, :n] / here[:, :n].sum(1, keepdim=True)
        return fit_logistic(x[:, :n], labels[:, :n], share, l2, spread, n_classes, **how)


def _gather(features: Tensor, labels: Tensor, parts: list[Part], factors: Tensor, few: bool) -> _Group:
    """The images of these parts. factors: float32 scales x (D + 1), that the columns are multiplied by."""
    of_each = [(fit[:CHOOSE_WITH], choose, fit[CHOOSE_WITH:]) for fit, choose in parts]
    rows = [pad_sequence(list(own), batch_first=True, padding_value=-1) for own in zip(*of_each, strict=True)]
    index, n_scales = torch.cat(rows, 1), len(factors)
    here, index = index >= 0, index.clamp_min(0)
    x = features[index]
    mean = centre(x, here)[:, None] * factors[:, :-1]
    x = x.mul_(factors) if n_scales == 1 else (x[:, None] * factors[:, None]).flatten(0, 1)
    here, y = here.repeat_interleave(n_scales, 0), labels[index].repeat_interleave(n_scales, 0)
    if few:
        x, spread, axes = span(x, here.sum(1))
    else:
        spread, axes = torch.linalg.vector_norm(x, dim=1).square() / here.sum(1, keepdim=True), None
    return _Group(x, mean.flatten(0, 1), spread, y, here, rows[0].shape[1], rows[1].shape[1], axes)


def _fit_group(
    features: Tensor, labels: Tensor, parts: list[Part], n_classes: int, factors: Tensor, few: bool
) -> list[Fitted]:
    """Fit a probe to each of these parts: first with all scales and penalties, then with what was chosen."""
    device, n_scales = labels.device, len(factors)
    group = _gather(features, labels, parts, factors, few)
    chosen, start = [_Choice(0, 0, USUAL_L2, 1.0)] * len(parts), None
    if group.n_choosing:
        tried, chosen = _choose(group, parts, labels, n_classes, n_scales)
        start = torch.stack([w[own.scale, own.penalty] for w, own in zip(tried, chosen, strict=True)])[:, None]
    places = torch.tensor([i * n_scales + own.scale for i, own in enumerate(chosen)], device=device)
    l2 = torch.tensor([[own.l2] for own in chosen], device=device)
    weight = group.fit(places, group.x.shape[1], l2, n_classes, start=start)[:, 0]
    weight, bias = weight[..., :-1], weight[..., -1]
    if group.axes is not None:
        weight = weight @ group.axes[places]
    bias = bias - (weight @ group.mean[places, :, None])[..., 0]
    return [Fitted(w, b, own.l2, own.scale, own.temperature) for w, b, own in zip(weight, bias, chosen, strict=True)]


@dataclass(frozen=True)
class _Choice:
    """Places of a scale and of a penalty; the penalty on all images; a temperature."""

    scale: int
    penalty: int
    l2: float
    temperature: float


def _choose(
    group: _Group, parts: list[Part], labels: Tensor, n_classes: int, n_scales: int
) -> tuple[Tensor, list[_Choice]]:
    """All weights that are tried, tasks x scales x penalties x C x (K + 1), and what is chosen for each task."""
    everything, n = torch.arange(len(group.x), device=labels.device), group.n_training
    l2 = torch.tensor(L2_PENALTIES, device=labels.device).expand(len(group.x), -1)
    weight = group.fit(everything, n, l2, n_classes, max_iter=TRIES, least_decrease=10 * LEAST_DECREASE)
    x = group.x[:, n : n + group.n_choosing]
    scores = (weight.flatten(1, 2) @ x.mT).unflatten(1, (len(L2_PENALTIES), n_classes))
    truth, here = (own[:, None, n : n + group.n_choosing] for own in (group.labels, group.here))
    right = ((scores.argmax(2) == truth) & here).sum(2).unflatten(0, (-1, n_scales)).cpu().numpy()
    scores, chosen = scores.unflatten(0, (-1, n_scales)), []
    for of_task, count, (fit, choose) in zip(scores, right, parts, strict=True):
        penalties = count.argmax(1)  # the first of equals
        best, n_choose = count.max(1), len(choose)
        error = math.sqrt(best.max() * (n_choose - best.max()) / n_choose)  # of a count
        scale = int(np.argmax(best >= best.max() - error))
        penalty = int(penalties[scale])
        logits = of_task[scale, penalty, :, :n_choose].T.cpu().double().numpy()
        temperature = fit_temperature(logits, labels[choose].cpu().numpy())
        l2_all = L2_PENALTIES[penalty] * min(len(fit), CHOOSE_WITH) / (len(fit) + n_choose)
        chosen.append(_Choice(scale, penalty, l2_all, temperature))
    return weight.unflatten(0, (-1, n_scales)), chosen
