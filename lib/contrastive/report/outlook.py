"""How long a report will still take: the work that is planned, at the speed at which the pretraining went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
EPOCH, NETWORK, GENERAL = "seed ", "network", "features by "  # kinds of work; of the first and last, steps begin so
NETWORKS = {arm.whom for arm in ARMS.values() if arm.labels is not None and "general" not in arm.roles}
READ = 5  # how many times as fast as before a part is that was not computed, but read
AT_ONCE = 0.8  # of the time that runs take one after the other, where several share the cores
THINNER = 0.75  # a network of half the channels takes 0.5 ** THINNER of the time


@dataclass
class Work:
    """Parts of the same kind, such as epochs: what each is worth, in views, how many of them are done, and the seconds
    that one takes, once that was seen."""

    parts: float
    views: float
    done: float = 0.0
    seconds: float = 0.0

    def left(self, seconds_of_view: float) -> float:
        """The seconds that are left."""
        return max(self.parts - self.done, 0.0) * (self.seconds or self.views * seconds_of_view)


class Outlook:
    """What is left of a report.

    Work is counted in views: what training on one view of one image costs with the report's encoder.

    Args:
        settings: resolved.
        images: theirs.
        notebooks: the names of those that will run, in order.
    """

    def __init__(self, settings: Settings, images: Images, notebooks: Sequence[str]) -> None:
        epoch = 2.0 * (settings.data.n_images or 0)  # views
        seeds = [settings.replace(seed=settings.runtime.seed + i) for i in range(settings.report.n_seeds)]
        epochs = settings.optimiser.epochs * sum(not _is_done(own) for own in seeds)
        self.work: dict[str, dict[str, Work]] = {name: {} for name in notebooks}
        if "02_linear_eval" in notebooks:
            networks, general = _networks(settings, images), _general(settings, images)
            self.work["02_linear_eval"] = {
                NETWORK: Work(len(seeds) * len(networks), sum(networks) / max(len(networks), 1)),
                GENERAL: Work(len(seeds) * general.parts, general.views),
            }
        if "03_ablations" in notebooks:
            self.work["03_ablations"] = _grids(settings)
        self.work[notebooks[0]] = {EPOCH: Work(epochs, epoch), **self.work[notebooks[0]]}
        self.seconds_of_view: float | None = None
        self._shown = ("", 0)  # the step that was seen last, and its parts that were done
        self._since = dict.fromkeys(notebooks, 0.0)  # when one more was, in seconds since a notebook began
        for own in seeds:
            if _is_done(own):
                self._learn_from(own, epoch)

    def _learn_from(self, settings: Settings, views: float) -> None:
        try:
            history = read_lines(run_folder(settings) / "history.jsonl", settings.optimiser.epochs)
        except (OSError, DamagedError):
            return
        self.seconds_of_view = sum(epoch["seconds"] for epoch in history) / len(history) / views

    def learn(self, notebook: str, elapsed: float, step: str, done: int, seconds: float) -> None:
        """Learn from what a step shows.

        Args:
            notebook, elapsed: that shows it, and the seconds since that began.
            step, done: its name, and how many of its parts are done.
            seconds: that a part takes; 0 where it is not known yet.
        """
        work = self.work[notebook].get(_kind(step))
        if work is None:
            return
        before = self._shown[1] if self._shown[0] == step and self._shown[1] <= done else 0
        if done > before:
            work.done, self._since[notebook] = work.done + done - before, elapsed
        self._shown = (step, done)
        if step in NETWORKS:  # of few images there is no step that shows how long looking at them takes
            self.work[notebook][GENERAL].done = self.work[notebook][GENERAL].parts
        # What was computed before and is only read again shows nothing of how long the rest will take.
        if seconds > work.views * (self.seconds_of_view or 0.0) / READ:
            work.seconds = seconds
            if not step.startswith(GENERAL):  # another network, of which little is known
                self.seconds_of_view = seconds / work.views

    def left(self, notebook: str, elapsed: float, cells: float) -> float | None:
        """Seconds until the whole report is done, after `elapsed` in this notebook, of whose cells so large a share has
        been run; None before the speed is known."""
        if self.seconds_of_view is None:
            return None
        names = list(self.work)
        seconds = [sum(work.left(self.seconds_of_view) for work in self.work[name].values()) for name in names]
        now = names.index(notebook)
        here = max(seconds[now] - (elapsed - self._since[notebook]), seconds[now] / 2)  # a part is on its way
        return here + FIXED * (1 - cells) + sum(FIXED + later for later in seconds[now + 1 :])


def _kind(step: str) -> str:
    """Of which kind of work a step of this name is."""
    if step in NETWORKS:
        return NETWORK
    return next((kind for kind in (EPOCH, GENERAL) if step.startswith(kind)), step)


def _is_done(settings: Settings) -> bool:
    return (run_folder(settings) / "encoder.safetensors").exists()


def _networks(settings: Settings, images: Images) -> list[float]:
    """Views on which networks are trained with labels: for each number of them, the networks of all folds."""
    budgets, full, views = settings.evaluation.budgets or (), settings.evaluation.level == "full", list[float]()
    if not budgets:
        return views
    headline, folded = headline_labels(budgets, images), images.cross_validated
    for arm in ARMS.values():
        if arm.whom not in NETWORKS or (arm.full and not full):
            continue
        trained = network_budgets(budgets, headline, folded)
        for n in trained if arm.thorough or full else middle_and_headline(trained, headline):
            own, steps = recipe(settings, n, None, True)
            views.append(steps * own.optimiser.batch_size * (n_folds(images) if folded else 1.0))
    return views


def _general(settings: Settings, images: Images) -> Work:
    """Looking at the images with a network that others trained, if there is one."""
    own = settings.evaluation
    if own.general == "none" or (own.general == "auto" and why_no_general(weights=own.weights or "")):
        return Work(0, 0)
    judged = images.n_labels if images.cross_validated else len(images.test)
    n = judged + min(max(own.budgets or (0,)), MOST_GENERAL) * (not images.cross_validated)
    there = OPERATIONS * ((own.general_size or 112) / 112) ** 2
    return Work(n, FORWARD * there / (3 * _operations(settings, images)))  # there and back is three times there


def _operations(settings: Settings, images: Images) -> float:
    """What the encoder's convolutions and products compute to give the features of one image."""
    encoder, counts = build_encoder(settings.encoder, images.format.shape, images.mean, images.std).eval(), list[int]()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda of, _, out: counts.append(2 * out.numel() * of.weight[0].numel()))
    with torch.no_grad():
        encoder(torch.zeros(1, *images.format.shape))
    return float(sum(counts))


def _grids(settings: Settings) -> dict[str, Work]:
    """The runs of the grids."""
    chosen, own, work = settings.ablations.grids, settings.flat(), dict[str, Work]()
    at_once = settings.ablations.ablation_jobs != 1 and settings.runtime.device == "cpu"
    share = AT_ONCE if at_once and torch.get_num_threads() > 1 else 1.0
    for name in grid_names() if "all" in chosen else chosen:
        overrides, views = ablation_overrides(name, settings), list[float]()
        for point in load_grid(name, overrides).combinations:
            run = {**own, **overrides, **point}
            width = run.get("base_channels", 1) / own.get("base_channels", 1)
            views.append(2.0 * run["n_images"] * run["epochs"] * width**THINNER * share)
        work[f"grid {name}"] = Work(overrides["seeds"] * len(views), sum(views) / len(views))
    return work
