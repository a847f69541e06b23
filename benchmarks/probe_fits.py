"""`python -m benchmarks.probe_fits DATASET`: linear probes fitted together, beside one fit after the other.

The other way is torch.optim.LBFGS with its line search, for one task and penalty after the other, each from the weights
of the last penalty: at most 50 iterations for each, and 100 for the last fit. Both take turns in one process, on the
same tasks: features of a random encoder and raw pixels, several numbers of labels with two draws, and folds. Ratios of
wall-clock times are given, which are right only where nothing else runs, and of operations that PyTorch was asked for,
which on a GPU are about the launches. Then how far either is from the least loss: how much higher the loss of its last
fit is, at most, than after 100 more iterations in float64.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive import Settings, load_images
from contrastive.evaluation.fitting import CHOOSE_WITH, L2_PENALTIES, Part
from contrastive.evaluation.probes import Probe, embed, fit_all, unit_length
from contrastive.training import initial_method, resolve

N_CLASSES = 10


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked for, views aside, and how often a number is read from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.read = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        self.asked += not view
        self.read += func.name() == "aten::_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def regress(
    x: Tensor, labels: Tensor, l2: float, start: tuple[Tensor, Tensor], most: int, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """One regression by PyTorch's own L-BFGS, from these weights and biases."""
    weight, bias = (own.clone().requires_grad_() for own in start)
    gradient, change = (1e-10, 1e-15) if exact else (1e-5, 1e-6)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=most, tolerance_grad=gradient, tolerance_change=change, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = loss_of(x, labels, l2, weight, bias)
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


def loss_of(x: Tensor, labels: Tensor, l2: float, weight: Tensor, bias: Tensor) -> Tensor:
    """Mean cross entropy and the penalty."""
    return F.cross_entropy(F.linear(x, weight, bias), labels) + l2 / 2 * weight.square().sum()


def one_after_other(features: Tensor, labels: Tensor, parts: list[Part]) -> list[Probe]:
    """Probes of all parts, each with all penalties in turn."""
    probes = []
    for fit, choose in parts:
        x, y, x_val, y_val = unit_length(features[fit]), labels[fit], unit_length(features[choose]), labels[choose]
        weight, bias = x.new_zeros(N_CLASSES, x.shape[1]), x.new_zeros(N_CLASSES)
        tried = []
        for l2 in L2_PENALTIES:
            weight, bias = regress(x[:CHOOSE_WITH], y[:CHOOSE_WITH], l2, (weight, bias), 50)
            right = int((F.linear(x_val, weight, bias).argmax(1) == y_val).sum())
            tried.append((right, l2, weight, bias))
        _, l2, weight, bias = max(tried, key=lambda own: own[0])
        l2 *= min(len(x), CHOOSE_WITH) / (len(x) + len(x_val))
        weight, bias = regress(torch.cat([x, x_val]), torch.cat([y, y_val]), l2, (weight, bias), 100)
        probes.append(Probe(weight, bias, l2))
    return probes


def above_least(features: Tensor, labels: Tensor, parts: list[Part], probes: list[Probe]) -> float:
    """How far above the least loss the probes are, at most."""
    excess = -math.inf
    for (fit, choose), probe in zip(parts, probes, strict=True):
        rows = torch.cat([fit, choose])
        x, y = unit_length(features[rows]).double(), labels[rows]
        own = probe.weight.double(), probe.bias.double()
        best = regress(x, y, probe.l2, own, 100, exact=True)
        losses = [loss_of(x, y, probe.l2, *at).item() for at in (own, best)]
        excess = max(excess, losses[0] - losses[1])
    return excess


def drawn(n_images: int, n_labels: int, n_probes: int) -> list[Part]:
    """Random labels for each probe, of which a fifth chooses."""
    draws = [torch.randperm(n_images, generator=torch.Generator().manual_seed(i))[:n_labels] for i in range(n_probes)]
    return [(own[n_labels // 5 :], own[: n_labels // 5]) for own in draws]


def folds(n_labels: int, n: int) -> list[Part]:
    """As cross-validation has it: each fold is held out once, and another one chooses."""
    parts = list(torch.randperm(n_labels, generator=torch.Generator().manual_seed(0)).chunk(n))
    return [(torch.cat([parts[j] for j in range(n) if j not in (i, (i + 1) % n)]), parts[(i + 1) % n])
            for i in range(n)]  # fmt: skip


def report(name: str, features: Tensor, labels: Tensor, parts: list[Part], repeats: int) -> None:
    """Print what both ways take."""
    ways: dict[str, Callable[[Tensor, Tensor, list[Part]], list[Probe]]] = {
        "together": lambda features, labels, parts: fit_all(features, labels, parts, N_CLASSES),
        "in turn": one_after_other,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, fit in ways.items():
            started = time.perf_counter()
            fit(features, labels, parts)
            if features.is_cuda:
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - started)
    counts, excess = {}, {}
    for way, fit in ways.items():
        with Operations() as operations:
            probes = fit(features, labels, parts)
        counts[way] = operations
        excess[way] = above_least(features, labels, parts, probes)
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    fewer = counts["in turn"].asked / counts["together"].asked
    told = ", ".join(
        f"{way} {statistics.median(seconds[way]):.3f} s, {counts[way].asked} operations, {counts[way].read} reads, "
        f"{excess[way]:.1e} above the least loss" for way in ways
    )  # fmt: skip
    print(f"{name}: {ratio:.1f} times as fast, {fewer:.1f} times fewer operations ({told})", flush=True)


def main() -> None:
    """Compare both ways, and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ten classes, and 6,000 images at least")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--least", type=int, default=100, help="labels")
    parser.add_argument("--most", type=int, default=5000, help="labels")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings, images = resolve(Settings(dataset=args.dataset, n_images=4000, general="none"), load_images(args.dataset))
    n = min(len(images.train), 2 * args.most)
    encoder = initial_method(settings, images.format).encoder.to(args.device)
    labels = images.train_labels[:n].to(args.device)
    kinds = {
        "random encoder": embed(encoder, images.train[:n]),
        "raw pixels": images.train[:n].flatten(1).to(args.device).float(),
    }
    for kind, features in kinds.items():
        budgets = [b for b in (100, 600, 5000) if args.least <= b <= args.most]
        cases = {f"{b} labels, {k} draws": drawn(n, b, k) for b in budgets for k in (1, 2)}
        cases["all of these, 2 draws"] = [part for b in budgets for part in drawn(n, b, 2)]
        cases["4 folds of 200 labels"] = folds(200, 4)
        for name, parts in cases.items():
            on = [(fit.to(args.device), choose.to(args.device)) for fit, choose in parts]
            report(f"{kind} ({features.shape[1]} wide), {name}", features, labels, on, args.repeats)


if __name__ == "__main__":
    main()
