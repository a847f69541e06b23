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
MAX_ITER = 500  # against going on for ever: features of networks and pixels take 15 to 65
NEWTON_STEPS = 2  # along each direction


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
    max_iter: int = MAX_ITER,
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
    search, target, share = _begin(x, labels, share, l2, n_classes, start)
    found, places = search.weight.clone(), torch.arange(l2.shape[1], device=x.device)
    for iteration in range(max_iter):
        if iteration and iteration % LOOK_EVERY == 0:
            going = search.active.any(0)
            n_going = int(going.sum())
            if n_going < len(places):
                found[:, places] = search.weight
                places = places[going]
                search.keep(going)
            if n_going == 0:
                break
        _iterate(search, x, target, share, spread, least_decrease)
    found[:, places] = search.weight
    return found


def _begin(
    x: Tensor, labels: Tensor, share: Tensor, l2: Tensor, n_classes: int, start: Tensor | None
) -> tuple[_Search, Tensor, Tensor]:
    """Where regressions start; the shares of rows at the class of each, B x 1 x C x N, and at all, B x 1 x 1 x N."""
    of_class = labels[:, None, :] == torch.arange(n_classes, device=x.device)[:, None]
    share = share[:, None, None, :]
    target = of_class[:, None] * share
    penalty = l2[:, :, None, None].expand(*l2.shape, 1, x.shape[2]).clone()
    penalty[..., -1] = 0
    weight = x.new_zeros(*l2.shape, n_classes, x.shape[2]) if start is None else start
    logits = _product(weight, x.mT)
    p = logits.softmax(2)
    gradient = _product(p * share - target, x) + penalty * weight
    active, decrease = torch.ones_like(l2, dtype=torch.bool), torch.zeros_like(l2)
    return _Search(weight, gradient, logits, p, active, decrease, penalty, []), target, share


def _product(a: Tensor, b: Tensor) -> Tensor:
    """B x Q x C x I and B x I x J -> B x Q x C x J, as one product of matrices for each of B."""
    return (a.flatten(1, 2) @ b).unflatten(1, a.shape[1:3])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product for each set and penalty, B x Q."""
    return (a * b).sum((2, 3))


def _iterate(search: _Search, x: Tensor, target: Tensor, share: Tensor, spread: Tensor, least_decrease: float) -> None:
    """One iteration of all regressions that are active: a direction, how far to go, and the gradient there."""
    direction = _direction(search, share, spread)
    along = _product(direction, x.mT)
    distance, decrease = _distance(search, direction, along, target, share)
    search.decrease = torch.maximum(decrease, FORGET * search.decrease)
    search.active = search.active & (search.decrease > least_decrease)
    distance = torch.where(search.active, distance, 0)[..., None, None]
    step = distance * direction
    search.weight = search.weight + step
    search.logits = search.logits + distance * along
    search.p = search.logits.softmax(2)
    gradient = _product(search.p * share - target, x) + search.penalty * search.weight
    change, search.gradient = gradient - search.gradient, gradient
    curvature = _dot(step, change)  # positive but for rounding, as the loss is convex
    counts = curvature > 1e-6 * _dot(step, step) * search.penalty[..., 0, 0]
    search.past = [*search.past[-MEMORY + 1 :], (step, change, torch.where(counts, 1 / curvature, 0))]
    search.active = search.active & (gradient.abs().amax((2, 3)) > TOLERANCE_GRADIENT)


def _direction(search: _Search, share: Tensor, spread: Tensor) -> Tensor:
    """Where to go from here, B x Q x C x K: the two loops of L-BFGS."""
    q, factors = search.gradient, []
    for step, change, rho in reversed(search.past):
        factors.append((rho * _dot(step, q))[..., None, None])
        q = torch.addcmul(q, factors[-1], change, value=-1)
    curvature = (search.p * (1 - search.p) * share).sum(3, keepdim=True).clamp_min(1e-8)
    q = q / (curvature * spread[:, None, None, :] + search.penalty).clamp_min(1e-12)
    for step, change, rho in search.past:
        factor = factors.pop() - (rho * _dot(change, q))[..., None, None]
        q = torch.addcmul(q, factor, step)
    return -q


def _distance(
    search: _Search, direction: Tensor, along: Tensor, target: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """How far to go along a direction, and by how much the loss is about to fall, both B x Q.

    With the slope f' and the curvature f'' at a place, and M the range of the logits' change, the loss t further is at
    most f + f' t + f'' (exp(M |t|) - M |t| - 1) / M^2, which is least at |t| = log(1 + M |f'| / f'') / M.
    """
    penalty_slope = _dot(search.penalty * search.weight, direction)
    penalty_curvature = _dot(search.penalty * direction, direction)
    reach = (along.amax(2) - along.amin(2)).amax(2).clamp_min(1e-12)
    slope = _dot(search.gradient, direction)
    p, distance, decrease = search.p, torch.zeros_like(slope), torch.zeros_like(slope)
    weighed = share * along
    for newton_step in range(NEWTON_STEPS):
        if newton_step:
            p = torch.addcmul(search.logits, distance[..., None, None], along).softmax(2)
            slope = _dot(p, weighed) - _dot(target, along) + penalty_slope + distance * penalty_curvature
        mean = (p * along).sum(2, keepdim=True)
        curvature = (_dot(p * along, weighed) - _dot(mean, mean * share) + penalty_curvature).clamp_min(1e-30)
        if not newton_step:
            decrease = slope.square() / curvature / 2
        distance = distance - slope.sign() * torch.log1p(reach * slope.abs() / curvature) / reach
    return distance, decrease
