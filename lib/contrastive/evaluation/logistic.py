"""Multinomial logistic regression, many at once: each step serves all of them.

A probe is fitted with several L2 penalties, each number of labels with several draws, and a report has several kinds of
features. One after the other these are thousands of small products, each of which a GPU is started for, and in which a
processor reads all features for the sake of ten columns. Together they are a few large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 5  # pairs of steps and changes of the gradient that L-BFGS keeps
LOOK_EVERY = 5  # iterations: only then it is asked whether all are done, for which a GPU has to be waited for
TOLERANCE_GRADIENT = 1e-5  # the largest entry of a gradient that counts as none
LEAST_DECREASE = 1e-7  # of the loss, that one more step has to promise
FORGET = 0.3  # how much of an earlier decrease counts: one direction may be bad by chance
SEARCHES = 2  # Newton steps along each direction


@dataclass
class _Search:
    """Where all regressions are: B sets of images, Q penalties, C classes, K features, N images.

    weight, gradient: B x Q x C x K. logits, p (class probabilities): B x Q x C x N. active: bool B x Q, those not yet
    done. decrease: B x Q, of the loss, that the last steps promised. penalty: B x Q x 1 x K. past: steps, changes of
    the gradient, and 1 / their product (0 of pairs that do not count), the oldest first.
    """

    weight: Tensor
    gradient: Tensor
    logits: Tensor
    p: Tensor
    active: Tensor
    decrease: Tensor
    penalty: Tensor
    past: list[tuple[Tensor, Tensor, Tensor]]

    def keep(self, q: Tensor) -> None:
        """Go on with these penalties only."""
        for name in ("weight", "gradient", "logits", "p", "active", "decrease", "penalty"):
            setattr(self, name, getattr(self, name)[:, q])
        self.past = [(step[:, q], change[:, q], rho[:, q]) for step, change, rho in self.past]


@torch.no_grad()
def fit_logistic(
    x: Tensor,
    labels: Tensor,
    share: Tensor,
    l2: Tensor,
    spread: Tensor,
    n_classes: int,
    start: Tensor | None = None,
    max_iter: int = 200,
    least_decrease: float = LEAST_DECREASE,
) -> Tensor:
    """Minimise, for each of B sets of images and Q penalties, mean cross entropy + l2/2 * |weight|^2.

    By L-BFGS (Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.4), with a first guess of the curvature
    that is nearly right where features do not go together: that of each feature is its mean square times the mean
    p (1 - p) of the class. How far to go along a direction is found by Newton steps, each of which lowers the loss for
    certain: the third derivative of the loss along a direction is at most its second one times the range of the logits'
    change (Bach, Self-concordant analysis for logistic regression, 0910.4627, proposition 1). Logits are linear in the
    step, so this takes no product with the features. A regression that is done stays as it is, and one result does not
    depend on which others there are.

    Args:
        x: float B x N x K, whose last column is 1: its weights are the biases, and are not penalised. Zero in rows that
            only fill up. At best, the columns are uncorrelated.
        labels: int64 B x N, any where rows only fill up.
        share: float B x N, what each row counts for: they add up to 1 for each set, and are 0 where rows only fill up.
        l2: float B x Q.
        spread: float B x K, about the mean square of each column.
        n_classes: C, of the labels.
        start: float B x Q x C x K (default: zeros).
        max_iter, least_decrease: iterations, at most; of the loss, what one more has to promise.

    Returns:
        Weights, float B x Q x C x K; the last of the K are the biases.
    """
    at, given, on = _begin(x, labels, share, l2, n_classes, start)
    found, places = at.weight.clone(), torch.arange(l2.shape[1], device=x.device)
    for iteration in range(max_iter):
        if iteration and iteration % LOOK_EVERY == 0:
            going = at.active.any(0)
            n_going = int(going.sum())
            if n_going < len(places):
                found[:, places] = at.weight
                places = places[going]
                at.keep(going)
            if n_going == 0:
                break
        _iterate(at, x, given, on, spread, least_decrease)
    found[:, places] = at.weight
    return found


def _begin(
    x: Tensor, labels: Tensor, share: Tensor, l2: Tensor, n_classes: int, start: Tensor | None
) -> tuple[_Search, Tensor, Tensor]:
    """Where regressions start; the shares of rows at the class of each, B x 1 x C x N, and at all, B x 1 x 1 x N."""
    of_class = labels[:, None, :] == torch.arange(n_classes, device=x.device)[:, None]
    on = share[:, None, None, :]
    given = of_class[:, None] * on
    penalty = l2[:, :, None, None].expand(*l2.shape, 1, x.shape[2]).clone()
    penalty[..., -1] = 0
    weight = x.new_zeros(*l2.shape, n_classes, x.shape[2]) if start is None else start
    logits = _product(weight, x.mT)
    p = logits.softmax(2)
    gradient = _product(p * on - given, x) + penalty * weight
    active, decrease = torch.ones_like(l2, dtype=torch.bool), torch.zeros_like(l2)
    return _Search(weight, gradient, logits, p, active, decrease, penalty, []), given, on


def _product(a: Tensor, b: Tensor) -> Tensor:
    """B x Q x C x I and B x I x J -> B x Q x C x J, as one product of matrices for each of B."""
    return (a.flatten(1, 2) @ b).unflatten(1, a.shape[1:3])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product for each set and penalty, B x Q."""
    return (a * b).sum((2, 3))


def _iterate(at: _Search, x: Tensor, given: Tensor, on: Tensor, spread: Tensor, least_decrease: float) -> None:
    """One iteration of all regressions that are active: a direction, how far to go, and the gradient there."""
    direction = _direction(at, on, spread)
    along = _product(direction, x.mT)
    distance, decrease = _distance(at, direction, along, given, on)
    at.decrease = torch.maximum(decrease, FORGET * at.decrease)
    at.active = at.active & (at.decrease > least_decrease)
    distance = torch.where(at.active, distance, 0)[..., None, None]
    step = distance * direction
    at.weight = at.weight + step
    at.logits = at.logits + distance * along
    at.p = at.logits.softmax(2)
    gradient = _product(at.p * on - given, x) + at.penalty * at.weight
    change, at.gradient = gradient - at.gradient, gradient
    bent = _dot(step, change)  # positive but for rounding, as the loss is convex
    counts = bent > 1e-6 * _dot(step, step) * at.penalty[..., 0, 0]
    at.past = [*at.past[-MEMORY + 1 :], (step, change, torch.where(counts, 1 / bent, 0))]
    at.active = at.active & (gradient.abs().amax((2, 3)) > TOLERANCE_GRADIENT)


def _direction(at: _Search, on: Tensor, spread: Tensor) -> Tensor:
    """Where to go from here, B x Q x C x K: the two loops of L-BFGS."""
    q, factors = at.gradient, []
    for step, change, rho in reversed(at.past):
        factors.append((rho * _dot(step, q))[..., None, None])
        q = torch.addcmul(q, factors[-1], change, value=-1)
    unsure = (at.p * (1 - at.p) * on).sum(3, keepdim=True).clamp_min(1e-8)
    q = q / (unsure * spread[:, None, None, :] + at.penalty).clamp_min(1e-12)
    for step, change, rho in at.past:
        factor = factors.pop() - (rho * _dot(change, q))[..., None, None]
        q = torch.addcmul(q, factor, step)
    return -q


def _distance(at: _Search, direction: Tensor, along: Tensor, given: Tensor, on: Tensor) -> tuple[Tensor, Tensor]:
    """How far to go along a direction, and by how much the loss is about to fall, both B x Q.

    With the slope f' and the curvature f'' at a place, and M the range of the logits' change, the loss t further is at
    most f + f' t + f'' (exp(M |t|) - M |t| - 1) / M^2, which is least at |t| = log(1 + M |f'| / f'') / M.
    """
    fixed = _dot(at.penalty * direction, direction)
    reach = (along.amax(2) - along.amin(2)).amax(2).clamp_min(1e-12)
    slope = slope_here = _dot(at.gradient, direction)
    p, distance, decrease = at.p, torch.zeros_like(slope), torch.zeros_like(slope)
    weighed = on * along
    for search in range(SEARCHES):
        if search:
            p = torch.addcmul(at.logits, distance[..., None, None], along).softmax(2)
            slope = _dot(p, weighed) - _dot(given, along) + _dot(at.penalty * at.weight, direction) + distance * fixed
        mean = (p * along).sum(2, keepdim=True)
        curvature = (_dot(p * along, weighed) - _dot(mean, mean * on) + fixed).clamp_min(1e-30)
        if not search:
            decrease = slope_here.square() / curvature / 2
        distance = distance - slope.sign() * torch.log1p(reach * slope.abs() / curvature) / reach
    return distance, decrease
