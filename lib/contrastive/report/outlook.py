"""How long a report will still take: the work that is planned, at the pace of what was done last."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..data import Images, headline_labels, n_folds
from ..encoders import build_encoder
from ..encoders.general import why_no_general
from ..evaluation.arms import ARMS, MOST_GENERAL, SCRATCH
from ..evaluation.labelled import middle_and_headline, network_budgets, recipe
from ..settings import Settings, grid_names
from ..storage.files import DamagedError, read_lines
from ..sweeps.comparison import ALONE, RUNS, entries
from ..sweeps.grids import load_grid
from ..sweeps.runner import ablation_overrides
from ..training import run_folder

FIXED = 20.0  # seconds of a notebook that no training explains: its kernel, imports, figures
# What the usual network that others trained computes for an image of 112 pixels; and what such an operation costs
# beside one of the training of a small network, since its depthwise convolutions wait for memory (seen on two cores).
OPERATIONS, FORWARD = 0.2e9, 2.5
EPOCH, NETWORK, GENERAL = "seed ", "network", "features by "  # kinds of work; a step of the first or last begins so
NETWORKS = {arm.whom for arm in ARMS.values() if arm.labels is not None and "general" not in arm.roles}
READ = 5  # a part that is so many times faster than expected was computed before, and is only read
PRETRAINING = ("01_pretrain", "02_linear_eval")  # notebooks that pretrain what is not there yet
AT_ONCE = 0.8  # of the time that runs take one after the other, where several share the cores
THINNER = 0.75  # a network of half the channels takes 0.5 ** THINNER of the time


@dataclass
class Work:
    """Work of one kind: what each of its parts is worth, in views, in their order; how many are done; the seconds of a
    view, once parts of this kind were seen; and whether that tells nothing of other kinds."""

    parts: Sequence[float]
    done: int = 0
    pace: float = 0.0
    apart: bool = False

    def left(self, pace: float) -> float:
        """The seconds that are left, at so many a view where this kind's own pace is not known."""
        return sum(self.parts[self.done :]) * (self.pace or pace)

    def half_a_part(self, pace: float) -> float:
        """Half of the seconds of the part that is next."""
        return sum(self.parts[self.done : self.done + 1]) / 2 * (self.pace or pace)


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
            networks = _networks(settings, images) * len(seeds)
            self.work["02_linear_eval"] = {
                NETWORK: Work(networks),
                GENERAL: Work(_general(settings, images), apart=True),  # it is of another network
            }
        if "03_ablations" in notebooks:
            self.work["03_ablations"] = _grids(settings)
        if "04_methods" in notebooks:
            self.work["04_methods"] = _methods(settings, images)
        for name in [name for name in notebooks if name in PRETRAINING][:1]:
            self.work[name][EPOCH] = Work([epoch] * epochs)
        self.pace: float | None = None  # seconds of a view
        self._step, self._shown = "", 0  # that was seen last, and how many of its parts were done
        self._began = 0.0  # since when its pace is taken, in seconds of the notebook
        self._views = 0.0  # that have been done since
        self._since = dict.fromkeys(notebooks, 0.0)  # when a part was done last
        for own in seeds:
            if _is_done(own):
                self._learn_from(own, epoch)

    def _learn_from(self, settings: Settings, views: float) -> None:
        try:
            history = read_lines(run_folder(settings) / "history.jsonl", settings.optimiser.epochs)
        except (OSError, DamagedError):
            return
        self.pace = sum(epoch["seconds"] for epoch in history) / len(history) / views

    def learn(self, notebook: str, elapsed: float, step: str, done: int) -> None:
        """Learn from a step that a notebook shows, so many seconds after it began: so many of its parts are done."""
        kind = _kind(step)
        work = self.work[notebook].get(kind)
        if work is None:
            return
        if step in NETWORKS:  # they come after looking at the images with another network
            self.work[notebook][GENERAL].done = len(self.work[notebook][GENERAL].parts)
        begins = step != self._step or done < self._shown
        new = done - (0 if begins else self._shown)
        self._step, self._shown = step, done
        parts = work.parts[work.done : work.done + new]
        work.done += new
        if begins:  # what is done by now was so before
            self._began, self._views, self._since[notebook] = elapsed, 0.0, elapsed
        elif parts and not any(parts):  # they had been done before
            self._began, self._views = elapsed, 0.0
        elif parts:
            self._since[notebook] = elapsed
            self._learn_pace(work, kind, elapsed, sum(parts))

    def _learn_pace(self, work: Work, kind: str, elapsed: float, views: float) -> None:
        """Learn from views that have been done since the step began, or since the last that was only read."""
        pace = (elapsed - self._began) / (self._views + views)
        if kind not in (EPOCH, GENERAL, RUNS) and (self.pace is None or pace < self.pace / READ):
            self._began, self._views = elapsed, 0.0
            return
        self._views += views
        work.pace = pace
        if not work.apart:
            self.pace = pace

    def left(self, notebook: str, elapsed: float, cells: float) -> float | None:
        """Seconds until the whole report is done, after `elapsed` in this notebook, of whose cells so large a share has
        been run; None before the pace is known."""
        if self.pace is None:
            return None
        names = list(self.work)
        seconds = [sum(work.left(self.pace) for work in self.work[name].values()) for name in names]
        now = names.index(notebook)
        least = max((work.half_a_part(self.pace) for work in self.work[notebook].values()), default=0.0)
        here = max(seconds[now] - (elapsed - self._since[notebook]), least)
        return here + FIXED * (1 - cells) + sum(FIXED + later for later in seconds[now + 1 :])


def _kind(step: str) -> str:
    """Of which kind of work a step of this name is."""
    if step in NETWORKS:
        return NETWORK
    return next((kind for kind in (EPOCH, GENERAL) if step.startswith(kind)), step)


def _is_done(settings: Settings) -> bool:
    return (run_folder(settings) / "encoder.safetensors").exists()


def _networks(settings: Settings, images: Images, whom: Collection[str] = NETWORKS) -> list[float]:
    """Views on which these networks are trained with labels: for each number of them, the networks of all folds."""
    budgets, full, views = settings.evaluation.budgets or (), settings.evaluation.level == "full", list[float]()
    if not budgets:
        return views
    headline, folded = headline_labels(budgets, images), images.cross_validated
    for arm in ARMS.values():
        if arm.whom not in whom or (arm.full and not full):
            continue
        trained = network_budgets(budgets, headline, folded)
        for n in trained if arm.thorough or full else middle_and_headline(trained, headline):
            own, steps = recipe(settings, n, None, True)
            views.append(steps * own.optimiser.batch_size * (n_folds(images) if folded else 1.0))
    return views


def _general(settings: Settings, images: Images) -> list[float]:
    """Views that looking at each image with a network that others trained is worth, if there is one. Other seeds look
    at the same images again, which are kept."""
    own = settings.evaluation
    if own.general == "none" or (own.general == "auto" and why_no_general(weights=own.weights or "")):
        return []
    judged = images.n_labels if images.cross_validated else len(images.test)
    n = judged + min(max(own.budgets or (0,)), MOST_GENERAL) * (not images.cross_validated)
    there = OPERATIONS * ((own.general_size or 112) / 112) ** 2
    return [FORWARD * there / (3 * _operations(settings, images))] * n  # there and back is three times there


def _operations(settings: Settings, images: Images) -> float:
    """What the encoder's convolutions and products compute to give the features of one image."""
    encoder, counts = build_encoder(settings.encoder, images.format.shape, images.mean, images.std).eval(), list[int]()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda of, _, out: counts.append(2 * out.numel() * of.weight[0].numel()))
    with torch.no_grad():
        encoder(torch.zeros(1, *images.format.shape))
    return float(sum(counts))


def _at_once(settings: Settings, jobs: int | None) -> float:
    """What runs in several processes take of the time that they take one after the other."""
    return AT_ONCE if jobs != 1 and settings.runtime.device == "cpu" and torch.get_num_threads() > 1 else 1.0


def _grids(settings: Settings) -> dict[str, Work]:
    """The runs of the grids."""
    chosen, own, work = settings.ablations.grids, settings.flat(), dict[str, Work]()
    share = _at_once(settings, settings.ablations.ablation_jobs)
    for name in grid_names() if "all" in chosen else chosen:
        overrides, views = ablation_overrides(name, settings), list[float]()
        for point in load_grid(name, overrides).combinations:
            run = {**own, **overrides, **point}
            width = run.get("base_channels", 1) / own.get("base_channels", 1)
            views.append(2.0 * run["n_images"] * run["epochs"] * width**THINNER * share)
        work[f"grid {name}"] = Work(views * overrides["seeds"])
    return work


def _methods(settings: Settings, images: Images) -> dict[str, Work]:
    """The runs of all methods, of which minutes are known where these were asked for; and the networks from labels,
    once for each encoder and seed."""
    own, found = settings.comparison, entries(settings, images)
    share, seeds = _at_once(settings, own.method_jobs), range(own.method_seeds)
    firsts = {entry.encoder: entry for entry in reversed(found)}
    usual = _operations(settings, images)
    heavier = {name: _operations(entry.settings, images) / usual for name, entry in firsts.items()}
    if own.minutes is None:
        runs = [_views(entry.of_seed(i), images) * heavier[entry.encoder] for i in seeds for entry in found]
        work = Work([share * views for views in runs])
    else:
        work = Work([60 * share * own.minutes] * (len(found) * len(seeds)), pace=1.0, apart=True)
    whom = {ARMS[arm].whom for arm in SCRATCH}
    once = {name: sum(_networks(entry.settings, images, whom)) * heavier[name] for name, entry in firsts.items()}
    alone = [share * once[name] for _ in seeds for name in dict.fromkeys(entry.encoder for entry in found)]
    alone[0] += sum(_general(settings, images))
    return {RUNS: work, ALONE: Work(alone)}


def _views(settings: Settings, images: Images) -> float:
    """Views of a run, small ones by their size; none, if it is done."""
    if _is_done(settings):
        return 0.0
    views, height = settings.views, settings.views.view_size or images.format.shape[1]
    small = (views.local_views or 0) * ((views.local_view_size or height) / height) ** 2
    return (2 + small) * (settings.data.n_images or 0) * settings.optimiser.epochs
