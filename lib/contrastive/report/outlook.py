"""How long a report will still take: the work that is planned, at the speed at which the pretraining went."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..data import Images, headline_labels, n_folds
from ..encoders import build_encoder
from ..encoders.general import why_no_general
from ..evaluation.arms import ARMS, MOST_GENERAL
from ..evaluation.labelled import middle_and_headline, network_budgets, recipe
from ..settings import Settings, grid_names
from ..storage.files import DamagedError, read_lines
from ..sweeps.grids import load_grid
from ..sweeps.runner import ablation_overrides
from ..training import run_folder

FIXED = 20.0  # seconds of a notebook that no training explains: its kernel, imports, figures
# What the usual network that others trained computes for an image of 112 pixels; and what such an operation costs
# beside one of the training of a small network, since its depthwise convolutions wait for memory (seen on two cores).
OPERATIONS, FORWARD = 0.2e9, 2.5
AT_ONCE = 0.8  # of the time that runs take one after the other, where several share the cores
THINNER = 0.75  # a network of half the channels takes 0.5 ** THINNER of the time


class Outlook:
    """What is left of a report.

    Work is counted in views: what training on one view of one image costs with the report's encoder.

    Args:
        settings: resolved.
        images: theirs.
        notebooks: the names of those that will run, in order.
    """

    def __init__(self, settings: Settings, images: Images, notebooks: Sequence[str]) -> None:
        self.epoch = 2.0 * (settings.data.n_images or 0)  # views
        self.seconds_of_view: float | None = None
        seeds = [settings.replace(seed=settings.runtime.seed + i) for i in range(settings.report.n_seeds)]
        todo = [own for own in seeds if not _is_done(own)]
        work = {
            "02_linear_eval": lambda: len(seeds) * (_networks(settings, images) + _general(settings, images)),
            "03_ablations": lambda: _grids(settings),
        }
        self.views = {name: work[name]() if name in work else 0.0 for name in notebooks}
        self.views[notebooks[0]] += sum(settings.optimiser.epochs - _epochs_done(own) for own in todo) * self.epoch
        for own in set(seeds) - set(todo):
            self._learn_from(own)

    def _learn_from(self, settings: Settings) -> None:
        try:
            history = read_lines(run_folder(settings) / "history.jsonl", settings.optimiser.epochs)
        except (OSError, DamagedError):
            return
        self.seconds_of_view = sum(epoch["seconds"] for epoch in history) / len(history) / self.epoch

    def learn(self, step: str, parts: int, seconds: float) -> None:
        """Learn from a step that a notebook shows, of which so many parts are left, for so many seconds."""
        if step.startswith("seed ") and parts and seconds and self.epoch:
            self.seconds_of_view = seconds / parts / self.epoch

    def left(self, notebook: str, elapsed: float, of_step: float = 0.0) -> float | None:
        """Seconds until the whole report is done, after `elapsed` in this notebook, whose present step says that it
        will take `of_step` more; None before the speed is known."""
        if self.seconds_of_view is None:
            return None
        names = list(self.views)
        seconds = [FIXED + self.views[name] * self.seconds_of_view for name in names]
        now = names.index(notebook)
        return max(seconds[now] - elapsed, of_step) + sum(seconds[now + 1 :])


def _epochs_done(settings: Settings) -> int:
    try:
        return len((run_folder(settings) / "history.jsonl").read_bytes().splitlines())
    except OSError:
        return 0


def _is_done(settings: Settings) -> bool:
    return (run_folder(settings) / "encoder.safetensors").exists()


def _networks(settings: Settings, images: Images) -> float:
    """Views on which networks are trained with labels."""
    budgets, full, views = settings.evaluation.budgets or (), settings.evaluation.level == "full", 0.0
    if not budgets:
        return 0.0
    headline, folded = headline_labels(budgets, images), images.cross_validated
    for arm in ARMS.values():
        if arm.labels is None or (arm.full and not full) or "general" in arm.roles:
            continue
        trained = network_budgets(budgets, headline, folded)
        for n in trained if arm.thorough or full else middle_and_headline(trained, headline):
            own, steps = recipe(settings, n, None, True)
            views += steps * own.optimiser.batch_size * (n_folds(images) if folded else 1)
    return views


def _general(settings: Settings, images: Images) -> float:
    """What looking at the images with a network that others trained costs, if there is one."""
    own = settings.evaluation
    if own.general == "none" or (own.general == "auto" and why_no_general(weights=own.weights or "")):
        return 0.0
    judged = images.n_labels if images.cross_validated else len(images.test)
    n = judged + min(max(own.budgets or (0,)), MOST_GENERAL) * (not images.cross_validated)
    there = OPERATIONS * ((own.general_size or 112) / 112) ** 2
    return n * FORWARD * there / (3 * _operations(settings, images))  # there and back is three times there


def _operations(settings: Settings, images: Images) -> float:
    """What the encoder's convolutions and products compute to give the features of one image."""
    encoder, counts = build_encoder(settings.encoder, images.format.shape, images.mean, images.std).eval(), list[int]()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda of, _, out: counts.append(2 * out.numel() * of.weight[0].numel()))
    with torch.no_grad():
        encoder(torch.zeros(1, *images.format.shape))
    return float(sum(counts))


def _grids(settings: Settings) -> float:
    """Views of the runs of the grids."""
    chosen, views, own = settings.ablations.grids, 0.0, settings.flat()
    for name in grid_names() if "all" in chosen else chosen:
        overrides = ablation_overrides(name, settings)
        for point in load_grid(name, overrides).combinations:
            run = {**own, **overrides, **point}
            width = run.get("base_channels", 1) / own.get("base_channels", 1)
            views += 2.0 * overrides["seeds"] * run["n_images"] * run["epochs"] * width**THINNER
    at_once = settings.ablations.ablation_jobs != 1 and settings.runtime.device == "cpu"
    return views * (AT_ONCE if at_once and torch.get_num_threads() > 1 else 1.0)
