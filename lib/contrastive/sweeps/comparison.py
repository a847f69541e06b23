"""Methods and encoders side by side: each trained with several seeds, and judged as a report judges its encoder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from ..data import Images, read_images
from ..evaluation import SCRATCH, Evaluation, evaluate, health
from ..settings import METHODS, RunError, Settings, UserError
from ..storage.cache import memo_record
from ..training import check_evaluation, pretrain, resolve
from ..training.footprint import VERSION, StepCost, step_cost
from ..training.loop import Epoch
from .workers import in_workers, jobs_that_pay

OWN = ("linear",)  # measured of every run
# Measured once for each encoder and seed, since no method changes them; the last ones with one encoder only
REFERENCES, ONCE = (*SCRATCH, "random_encoder", "initial_encoder"), ("general",)
SEEN = 500  # images by which the health of a run is told
KILLED = "its process was killed, likely for want of memory"
TIMING, RUNS, ALONE = "timing steps", "runs", "labels alone"  # what takes long, as it is shown


Arms = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A method with an encoder. settings: resolved, with the first seed. cost: what its steps take, or why that is not
    known."""

    method: str
    encoder: str
    settings: Settings
    cost: StepCost | str = ""

    @property
    def title(self) -> str:
        """The method's name for readers."""
        return METHODS[self.method].TITLE or self.method

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.method}, {self.encoder}"

    def of_seed(self, i: int) -> Settings:
        """Its settings with the i-th seed."""
        return self.settings.replace(seed=self.settings.runtime.seed + i, n_seeds=1)


@dataclass(frozen=True)
class Outcome:
    """Of one run: what was measured, its history, the checks of its health; or why it failed."""

    evaluation: Evaluation | None = None
    history: list[Epoch] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""

    @property
    def seconds(self) -> float:
        """Spent on training."""
        return sum(epoch["seconds"] for epoch in self.history)


@dataclass
class Comparison:
    """What was compared. outcomes: of each entry, by its key and by seed. references: of what needs no method, by
    encoder and by seed: networks from scratch, the encoder before training, the network that others trained."""

    entries: list[Entry]
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)
    references: dict[str, dict[int, Outcome]] = field(default_factory=dict)


# --- What is compared ---------------------------------------------------------------------------------------------


def with_method_seeds(settings: Settings) -> Settings:
    """Settings of which nothing is resolved but what was asked for, with as many seeds as each method has: images and
    labels have to suffice for all of them."""
    asked = {name: value for name, value in settings.flat().items() if name in settings.asked}
    n_seeds = max(settings.report.n_seeds, settings.comparison.method_seeds)
    return Settings(**{**asked, "preset": settings.preset, "n_seeds": n_seeds}).asking(settings.asked)


def entries(settings: Settings, images: Images) -> list[Entry]:
    """Every method with every encoder that a report compares, each checked against the images. Nothing is trained.

    Raises: UserError when one of them cannot be used, named.
    """
    own, base = settings.comparison, with_method_seeds(settings)
    names = [name for name in METHODS if not METHODS[name].NEEDS_LABELS]
    methods = dict.fromkeys(name for asked in own.methods for name in (names if asked == "all" else [asked]))
    epochs = {} if own.method_epochs is None else {"epochs": own.method_epochs}
    found = []
    for encoder in own.encoders or (settings.encoder.name,):
        for method in methods:
            try:
                each, _ = resolve(base.replace(method=method, encoder=encoder, **epochs), images)
                if METHODS[method].NEEDS_LABELS:
                    check_evaluation(each, images)  # whether it would be judged on what it learned from
            except UserError as mistake:
                raise UserError(f"04_methods, method={method} with encoder={encoder}: {mistake}") from None
            found.append(Entry(method, encoder, each))
    return found


def check_methods(settings: Settings, images: Images) -> None:
    """Raises: UserError when what is to be compared cannot be."""
    entries(settings, images)


# --- Running it ---------------------------------------------------------------------------------------------------


def compare(settings: Settings, images: Images, progress: bool = True) -> Comparison:
    """Train and judge every method with every encoder and seed that the settings name; or load what was done before.

    A run that fails is told of in its outcome, and does not stop the others.

    Raises:
        UserError: before anything starts.
        RunError: when no run ended.
    """
    own, seeds = settings.comparison, range(settings.comparison.method_seeds)
    found = Comparison(entries(settings, images))
    jobs = own.method_jobs or _jobs_that_pay(settings, found.entries)
    found.entries = _with_costs(found.entries, own.minutes, images, jobs, progress)
    tasks = [(entry, i, OWN) for i in seeds for entry in found.entries]
    for (entry, i, _), outcome in _outcomes(RUNS, tasks, jobs, progress):
        found.outcomes.setdefault(entry.key, {})[i] = outcome
    ended = [(entry, i) for entry, i, _ in tasks if found.outcomes[entry.key][i].evaluation is not None]
    if not ended:
        raise RunError(f"no run ended. The first one: {found.outcomes[found.entries[0].key][0].why}")
    # The first of each encoder whose run with that seed ended will do
    firsts = list({(entry.encoder, i): (entry, i) for entry, i in reversed(ended)}.values())[::-1]
    found.references = {entry.encoder: {} for entry, _ in firsts}
    once = next(iter(found.references))
    tasks = [(entry, i, (*REFERENCES, *(ONCE if entry.encoder == once else ()))) for entry, i in firsts]
    for (entry, i, _), outcome in _outcomes(ALONE, tasks, jobs, progress):
        found.references[entry.encoder][i] = outcome
    return found


def _jobs_that_pay(settings: Settings, found: Sequence[Entry]) -> int:
    """Of all that is compared, or what was stopped would go on with other numbers of threads, and so with other bits;
    how many steps fit the minutes is not known yet."""
    own, n = settings.comparison, settings.comparison.method_seeds
    steps = sum(n * _steps(each.settings) * each.settings.optimiser.epochs for each in found)
    return jobs_that_pay(settings.runtime.device, n * len(found), steps if own.minutes is None else sys.maxsize)


def _steps(settings: Settings) -> int:
    """Of an epoch."""
    return (settings.data.n_images or 0) // settings.optimiser.batch_size


def _with_costs(found: list[Entry], minutes: float | None, images: Images, jobs: int, progress: bool) -> list[Entry]:
    """Entries with what their steps take, and, if they have minutes, with the epochs that fit. Raises: RunError when
    that cannot be told of one."""
    costs: dict[int, StepCost | str] = {}
    with _bar(TIMING, len(found), progress) as bar:
        for i, cost in in_workers(_cost, [(each.settings,) for each in found], jobs):
            costs[i] = cost or KILLED
            bar.update()
    made = []
    for i, each in enumerate(found):
        settings, cost = each.settings, costs[i]
        if minutes is not None:
            if isinstance(cost, str):
                raise RunError(f"{each.key}: its steps cannot be timed: {cost}")
            epochs = max(int(60 * minutes / (cost.seconds * _steps(settings))), 1)
            settings, _ = resolve(with_method_seeds(settings).replace(epochs=epochs), images)
        made.append(Entry(each.method, each.encoder, settings, cost))
    return made


def _cost(settings: Settings) -> StepCost | str:
    """What a step takes, or took before, so that the same minutes are the same epochs again; or why it cannot be
    taken."""
    decisive = {
        "version": VERSION,
        "step": settings.replace(epochs=1, seed=0).identity,
        "threads": torch.get_num_threads(),
    }
    try:
        kept = memo_record("step", decisive, lambda: vars(step_cost(settings)), "timing training steps")
    except Exception as failure:  # its run tells it, too
        return _in_words(failure)
    return StepCost(kept["seconds"], int(kept["bytes"]), int(kept["lasting"]))


def _bar(what: str, n: int, progress: bool) -> Any:
    return tqdm(total=n, desc=what, disable=not progress, mininterval=1, file=sys.stdout)


def _outcomes(
    what: str, tasks: Sequence[tuple[Entry, int, Arms]], jobs: int, progress: bool
) -> Iterator[tuple[tuple[Entry, int, Arms], Outcome]]:
    """The outcomes, as they come, of entries with seeds, each with the arms that are measured."""
    calls = [(entry.of_seed(i), arms) for entry, i, arms in tasks]
    with _bar(what, len(tasks), progress) as bar:
        for k, outcome in in_workers(_outcome, calls, jobs):
            entry, i, _ = tasks[k]
            bar.set_postfix_str(f"{entry.key}, seed {entry.settings.runtime.seed + i}"[:60], False)
            bar.update()
            yield tasks[k], outcome or Outcome(why=KILLED)


def _outcome(settings: Settings, arms: Arms) -> Outcome:
    """Of one run, trained and measured, if need be."""
    try:
        run, images = pretrain(settings, progress=False), read_images(settings.data)
        checks = health(run, images.to_look_at(SEEN)[0].to(settings.runtime.device)) if arms == OWN else []
        return Outcome(evaluate(run, images, progress=False, only=arms), run.history, checks)
    except Exception as failure:  # whatever it is, the other runs are to go on
        return Outcome(why=_in_words(failure))


def _in_words(failure: Exception) -> str:
    said = " ".join(str(failure).split())[:300]
    return said if isinstance(failure, UserError) else f"{type(failure).__name__}: {said}"
