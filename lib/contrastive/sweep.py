"""Many runs, to see what a parameter does: the points of an ablation, each several seeds, each cached as a run."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from .evaluate import standard_error, validation_accuracy
from .files import DamagedError, locked, read_json, say, write_json
from .pretrain import TRAINING_CODE, Run, code_hash, pretrain
from .settings import Settings, parse_policy

TEMPERATURES = (0.1, 0.2, 0.5, 1.0)
HEADS = ("none", "linear", "mlp")
BASE = "base"
BASE_SEEDS = 3  # at least: they tell how much noise to expect


def ablation_base(settings: Settings) -> Settings:
    """The run that all points differ from in one value: the recipe's augmentations, in the ablation's size."""
    return settings.but(augment="simclr", epochs=settings.ablation_epochs, width=settings.ablation_width, n_seeds=1)


def ablation_points(base: Settings) -> dict[str, dict[str, Settings]]:
    """Group -> point -> settings, each one value away from `base`, which is a point of every group."""
    groups = {
        "temperature": {f"temperature {t:g}": base.but(temperature=t) for t in TEMPERATURES},
        "augmentation": {
            f"without {op}": base.but(augment=f"{base.augment}-{op}") for op in parse_policy(base.augment)
        },
        "head": {f"head {kind}": base.but(head=kind) for kind in HEADS},
    }
    return {
        group: {BASE: base} | {name: s for name, s in points.items() if s != base} for group, points in groups.items()
    }


def measure(
    points: Mapping[str, Settings], seeds: int, n_labels: int, progress: bool = True
) -> tuple[dict[str, list[float]], bool]:
    """Validation accuracy of each point over `seeds` seeds (the base: at least BASE_SEEDS), trained where needed.

    Also returns whether the training code has changed since any of the runs was made.
    """
    jobs = [
        (name, settings.but(seed=settings.seed + i))
        for name, settings in points.items()
        for i in range(max(seeds, BASE_SEEDS) if name == BASE else seeds)
    ]
    values: dict[str, list[float]] = {name: [] for name in points}
    code_changed = False
    for name, settings in tqdm(jobs, desc="ablation runs", disable=not progress, mininterval=1, file=sys.stdout):
        run = pretrain(settings, progress=False)
        values[name].append(_cached_accuracy(run, n_labels))
        code_changed |= run.code_changed
    return values, code_changed


def _cached_accuracy(run: Run, n_labels: int) -> float:
    path, key = run.folder / "validation.json", code_hash((*TRAINING_CODE, "probes", "evaluate")) + f" {n_labels}"
    with locked(run.folder, "evaluating it"):
        saved: dict[str, float] = {}
        try:
            saved = read_json(path)
        except FileNotFoundError:
            pass
        except DamagedError as damage:
            say(f"{damage} The run is evaluated again.")
        if key not in saved:
            saved = {key: validation_accuracy(run, n_labels)}
            write_json(path, saved)
    return saved[key]


def noise(values: Mapping[str, Sequence[float]], n_validation: int) -> float:
    """Half the width, in points, of the 95 % interval of the difference between a point and the base.

    From the spread over seeds (pooled over all points with several), by Student's t since the seeds are few; or,
    where that is smaller, from the number of validation images alone: three seeds can agree by luck.
    """
    from scipy.stats import t

    groups = [v for v in values.values() if len(v) > 1]
    freedom = sum(len(v) - 1 for v in groups)
    spread = (sum(statistics.variance(v) * (len(v) - 1) for v in groups) / freedom) ** 0.5
    spread = max(spread, standard_error(statistics.fmean(values[BASE]), n_validation))
    fewest = min(len(v) for v in values.values())
    return float(t.ppf(0.975, freedom)) * spread * (1 / fewest + 1 / len(values[BASE])) ** 0.5


def strongest(values: Mapping[str, Sequence[float]], interval: float) -> tuple[str, float, int]:
    """The point that differs most from the base, by how much, and how many differ by more than `interval` points."""
    base = statistics.fmean(values[BASE])
    change = {name: statistics.fmean(v) - base for name, v in values.items() if name != BASE}
    name = max(change, key=lambda point: abs(change[point]))
    return name, change[name], sum(abs(d) > interval for d in change.values())


def finding(values: Mapping[str, Sequence[float]], interval: float) -> str:
    """A sentence: which points differ from the base by more than `interval` points, and which do not."""
    base = statistics.fmean(values[BASE])
    change = {name: statistics.fmean(v) - base for name, v in values.items() if name != BASE}
    beyond = {name: d for name, d in change.items() if abs(d) > interval}
    if not beyond:
        return f"No point differs from the base's {base:.2f} % by more than noise (95 %: ±{interval:.2f} points)."
    parts = [f"{name} {d:+.2f} points" for name, d in sorted(beyond.items(), key=lambda item: item[1])]
    within = [f"{name} ({d:+.2f})" for name, d in change.items() if name not in beyond]
    said = f"Against the base's {base:.2f} %, more than noise: {', '.join(parts)}."
    return said + (f" Within noise (95 %: ±{interval:.2f} points): {', '.join(within)}." if within else "")
