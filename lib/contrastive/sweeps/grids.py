"""Grids of settings, as YAML files: read, checked, and judged against what a paper found with them."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..data.images import load_images, resolve, split
from ..settings.model import RUN_FIELDS, Settings, UserError, grid_names, grids_folder, make_settings, nearest
from ..evaluation.statistics import standard_error

MAX_RUNS = 10_000  # more is a mistake
JUDGED_ON = "judged_on"  # in a side of a claim: h or z
REPORTED = ("budgets", "label_draws", "evaluation", "transfer", "supervised_steps")  # what a report depends on besides
OWN = ("seeds", "labels")  # what `-p` may change of a grid beside settings
Value = str | int | float | bool | None


class Claim(BaseModel):
    """A finding to be checked: the points that `better` selects are better than those that `worse` selects. own: it is
    not the paper's, if the grid names one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    say: str
    better: dict[str, Value]
    worse: dict[str, Value]
    own: bool = False


class Grid(BaseModel):
    """What a grid's file holds. `vary` gives every combination of its values, `points` those that it lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^\w[\w-]*$", max_length=60)] = "grid"  # of files and folders
    title: str
    question: str = ""
    base: dict[str, Value] = {}
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    labels: Annotated[int, Field(ge=20)] = 1000
    features: tuple[Literal["h", "z"], ...] = ("h",)
    vary: dict[str, Annotated[list[Value], Field(min_length=1)]] = {}
    points: list[dict[str, Value]] = []
    paper: str = ""
    optional: bool = False  # whether points that the data cannot serve are left out, rather than a mistake
    figure: Literal["dots", "lines", "heatmap"] = "dots"
    x: str = ""  # of lines: the setting along the axis
    line: str = ""  # of lines: the setting that has one each
    names: dict[str, str] = {}  # what a value is called, where its setting's name and itself would not tell a reader
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Point:
    """One combination: what it varies, and its settings, resolved, with the first seed."""

    name: str
    varied: dict[str, Value]
    settings: Settings


@dataclass
class GridResult:
    """What a grid's runs gave. values: h or z -> point -> seed -> percent right on validation images.

    untrained: the same of each point's encoder with its random first weights. failures: (point, seed, why).
    code_changed: whether the training code has changed since any of the runs was made.
    """

    grid: Grid
    points: dict[str, Point]
    n_validation: int
    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    untrained: dict[str, dict[int, float]] = field(default_factory=dict)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    code_changed: bool = False
    seconds: float = 0.0

    def of(self, point: str, features: str = "h") -> list[float]:
        """A point's accuracies, by seed; empty if all failed."""
        return list(self.by_seed(point, features).values())

    def by_seed(self, point: str, features: str = "h") -> dict[int, float]:
        """A point's accuracies, seeds rising; empty if all failed."""
        return dict(sorted(self.values.get(features, {}).get(point, {}).items()))


def load_grid(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid in a YAML file, or the one of that name among those that come with the project.

    overrides: settings that its base is to have, and `seeds` and `labels`. Raises: UserError.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        known = grid_names()
        if str(source) not in known:
            raise UserError(nearest(str(source), known, "grid") + " A grid of your own is a file that ends in .yaml.")
        path = grids_folder() / f"{source}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the grid {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no grid: it needs title, and vary or points.")
    for name in content:
        if name not in Grid.model_fields:
            raise UserError(f"{path}: {nearest(name, Grid.model_fields, 'part of a grid')}")
    changes = dict(overrides or {})
    base = content.get("base") or {}
    content |= {name: changes.pop(name) for name in OWN if name in changes}
    try:
        grid = Grid(
            **{
                "name": re.sub(r"\W+", "_", path.stem)[:60] or "grid",
                **content,
                "base": {**base, **changes} if isinstance(base, dict) else base,
            }
        )
    except ValidationError as error:
        errors = error.errors()  # of a misspelt part, that it is unknown says more than that another one is missing
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"{path}: {where}: {nearest(str(first['loc'][-1]), Claim.model_fields, 'part of a claim')}"
            ) from None
        raise UserError(f"{path}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}.") from None
    if not grid.vary and not grid.points:
        raise UserError(f"{path} varies nothing: it needs vary or points.")
    if "n_seeds" in {*grid.base, *grid.vary, *itertools.chain(*grid.points)}:
        raise UserError(f"grid {grid.name}: say how many seeds with seeds (or -p seeds=5), not with n_seeds.")
    for name in changes:
        if name in grid.vary or any(name in point for point in grid.points):
            raise UserError(
                f"grid {grid.name} varies {name} itself, so {name}={changes[name]} would leave it comparing something "
                "else. A copy of its file can be changed at will."
            )
    return grid


def grid_points(grid: Grid, reports: bool = False) -> dict[str, Point]:
    """All points of a grid by name, every setting checked against the data. Two of the same settings are one.

    reports: whether points are reports, rather than trainings that are judged on validation images, to which settings
    of the evaluation do nothing. Raises: UserError that names grid, point and parameter.
    """
    combinations: list[dict[str, Value]] = list(grid.points)
    if grid.vary:
        if math.prod(map(len, grid.vary.values())) > MAX_RUNS:
            raise UserError(f"grid {grid.name} has more than {MAX_RUNS:,} points.")
        combinations = [
            dict(zip(grid.vary, values, strict=True)) for values in itertools.product(*grid.vary.values())
        ] + combinations
    if any("seed" in varied for varied in combinations):
        raise UserError(f"grid {grid.name} varies seed: say how many there are with seeds, and the first one in base.")
    varied_at_all = {key for varied in combinations for key in varied}
    if idle := varied_at_all & set(Settings.model_fields) - {"preset", *RUN_FIELDS, *(REPORTED if reports else ())}:
        hint = " A report for each point shows what it does: --reports." if min(idle) in REPORTED else ""
        raise UserError(f"grid {grid.name} varies {min(idle)}, which changes nothing of its points.{hint}")
    found: dict[str, Point] = {}
    seen: set[tuple[str, ...]] = set()
    left_out: list[dict[str, Value]] = []
    why = ""
    for varied in combinations:
        name = ", ".join(
            grid.names.get(_word(value), f"{key.replace('_', ' ')} {_word(value)}") for key, value in varied.items()
        )
        try:
            asked = make_settings(**{**grid.base, **varied})  # a mistake in the grid, whatever the data
            try:
                settings = resolve(asked)
            except UserError as mistake:
                if not grid.optional:
                    raise
                left_out.append(varied)
                why = str(mistake)
                continue
        except UserError as mistake:
            raise UserError(f"grid {grid.name}, point {name}: {mistake}") from None
        same = settings.run_name, *(str(getattr(settings, name)) for name in (REPORTED if reports else ()))
        if same not in seen:
            seen.add(same)
            found[name] = Point(name, varied, settings)
    if len({point.settings.dataset for point in found.values()}) > 1:
        raise UserError(f"grid {grid.name}: all points have to be of one data set, since they are compared.")
    if not found:
        raise UserError(f"grid {grid.name}: the data can serve none of its points: {why}")
    for claim in grid.claims:
        for side in (claim.better, claim.worse):
            _check_side(side, [*(point.varied for point in found.values()), *left_out], grid)
    first = next(iter(found.values())).settings
    images = load_images(first)
    n_rest = len(split(images, first.n_images or 0, first.seed).rest)
    if grid.labels > n_rest and not reports:
        raise UserError(f"grid {grid.name}: labels={grid.labels}: there are only {n_rest:,} beside validation.")
    return found


def _word(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else str(value)


def selected(points: Mapping[str, Point], side: Mapping[str, Value], grid: Grid) -> list[str]:
    """The names of the points that have a claim's values. Raises: UserError when there are none, unless the grid is
    optional, so that the data may not serve them."""
    if not grid.optional:
        _check_side(side, [point.varied for point in points.values()], grid)
    return [name for name, point in points.items() if _has(point.varied, side)]


def _has(varied: Mapping[str, Value], side: Mapping[str, Value]) -> bool:
    asked = {key: value for key, value in side.items() if key != JUDGED_ON}
    return all(key in varied and _word(varied[key]) == _word(value) for key, value in asked.items())


def _check_side(side: Mapping[str, Value], points: Sequence[Mapping[str, Value]], grid: Grid) -> None:
    """Raises: UserError when a side of a claim is about no point, or about features that are not judged."""
    if not any(_has(varied, side) for varied in points):
        asked = ", ".join(f"{key} {_word(value)}" for key, value in side.items() if key != JUDGED_ON)
        raise UserError(f"grid {grid.name}: a claim is about {asked}, but there is no such point.")
    if (kind := side.get(JUDGED_ON, "h")) not in grid.features:
        raise UserError(f"grid {grid.name}: a claim is judged on {kind}, but features has {', '.join(grid.features)}.")


@dataclass(frozen=True)
class Verdict:
    """On a claim: confirmed, refuted, undecided or not run; the difference in points, the half width of its 95 %
    interval, and the p-value of there being none; the last two are not a number with one seed."""

    word: str
    points: float
    interval: float
    p: float

    @property
    def shown(self) -> str:
        """The half width as a reader sees it."""
        return "?" if math.isnan(self.interval) else f"{self.interval:.2f}"


Row = Mapping[int, float]  # seed -> accuracy of a point, in percent


def verdict(result: GridResult, claim: Claim) -> Verdict:
    """Whether a claim holds in a grid's results, by `compare` of the points that its sides select.

    A side may be `judged_on: z`, the projections.
    """
    kinds = [str(side.get(JUDGED_ON, "h")) for side in (claim.better, claim.worse)]
    better, worse = (
        [result.values.get(kind, {}).get(name, {}) for name in selected(result.points, side, result.grid)]
        for kind, side in zip(kinds, (claim.better, claim.worse), strict=True)
    )
    return compare(result, better, worse, kinds[0] if len(set(kinds)) == 1 else None)


def compare(result: GridResult, better: Sequence[Row], worse: Sequence[Row], kind: str | None = "h") -> Verdict:
    """Whether some points are better than others on average, by the differences of the seeds that all of them have.

    Seeds are paired, since they share images, labels and validation images. What is left of a grid's accuracies after
    the effects of points and of seeds tells the noise, pooled over its points, since few seeds would not tell it well:
    the residual mean square of a layout of points by seeds, of those points that have all seeds, on the scale of
    log-odds, where networks that err much and little vary about as much. By Student's t, but never narrower than the
    validation images allow. kind: h or z; with None, or where nothing can be pooled, the differences of the seeds
    alone tell the noise. With one seed nothing does, and what differs stays undecided.
    """
    from scipy.stats import t

    seeds = sorted(set.intersection(*(set(row) for row in (*better, *worse)))) if better and worse else []
    if not seeds:
        return Verdict("not run", math.nan, math.nan, math.nan)
    sides = [np.array([[row[seed] for seed in seeds] for row in side]) for side in (better, worse)]
    a, b = (side.mean(0) for side in sides)
    mean, n = float(a.mean() - b.mean()), len(seeds)
    noise = _pooled_noise(result, kind) if kind is not None else None
    if noise is not None:
        spread, freedom = noise
        # From log-odds back to points, each point where it is
        error = spread * math.sqrt(sum((_slope(side.mean(1)) ** 2).sum() / len(side) ** 2 for side in sides) / n)
    elif n > 1:
        freedom, error = n - 1, float((a - b).std(ddof=1)) / math.sqrt(n)
    else:
        return Verdict("undecided", mean, math.nan, math.nan)
    quantile = float(t.ppf(0.975, freedom))
    half = max(quantile * error, _least_interval(sides, result.n_validation))
    word = "undecided" if not abs(mean) > half else "confirmed" if mean > 0 else "refuted"
    return Verdict(word, mean, half, float(2 * t.sf(quantile * abs(mean) / half, freedom)))


def _pooled_noise(result: GridResult, kind: str) -> tuple[float, int] | None:
    """Standard deviation of log-odds that neither points nor seeds explain, and its degrees of freedom; None if fewer
    than two points have two seeds."""
    from scipy.special import logit

    seeds = sorted(set().union(*result.values[kind].values()))
    rows = [own for own in result.values[kind].values() if len(own) == len(seeds)]
    if len(rows) < 2 or len(seeds) < 2:
        return None
    share = np.array([[own[seed] for seed in seeds] for own in rows]) / 100
    least = 0.5 / result.n_validation
    x = logit(share.clip(least, 1 - least))
    residual = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    return math.sqrt(float((residual**2).sum()) / freedom), freedom


def _slope(percent: np.ndarray) -> np.ndarray:
    """How many points an accuracy changes by for each unit of its log-odds."""
    return percent * (100 - percent) / 100


def _least_interval(sides: Sequence[np.ndarray], n_images: int) -> float:
    """1.96 standard errors of one accuracy on that many images, over the square root of the number of seeds: two
    networks err on much the same images, so their difference is known about as well as one of them."""
    middle = statistics.fmean(float(side.mean()) for side in sides)
    return 1.96 * standard_error(middle, n_images) / math.sqrt(sides[0].shape[1])


def least_difference(result: GridResult, kind: str = "h") -> float:
    """By how much any two points of a grid have to differ, that it is more than noise: the largest half width of
    `compare`; nan if there are no two, or one seed."""
    pairs = itertools.combinations(result.values[kind].values(), 2)
    intervals = [compare(result, [one], [other], kind).interval for one, other in pairs]
    return max((half for half in intervals if not math.isnan(half)), default=math.nan)


def bar_length(result: GridResult, row: Row, kind: str = "h") -> float:
    """By how much a point has to differ from another that is about as good, that it is more than noise; nan with one
    seed."""
    if _pooled_noise(result, kind) is None:  # then only pairs of different points tell it
        return least_difference(result, kind)
    return compare(result, [row], [row], kind).interval


def finding(result: GridResult, claim: Claim) -> str:
    """A claim's verdict in words."""
    found = verdict(result, claim)
    if found.word == "not run":
        return f"{claim.say}: not run here."
    if math.isnan(found.interval):
        return f"{claim.say}: undecided here ({found.points:+.2f} points, but one seed does not tell noise)."
    words = {"confirmed": "so it is here", "refuted": "here it is the other way round", "undecided": "undecided here"}
    return f"{claim.say}: {words[found.word]} ({found.points:+.2f} ± {found.shown} points, 95 %)."


def summary_sentence(result: GridResult, features: str = "h") -> str:
    """Which point is best, and how many of the others are worse by more than noise."""
    means = {name: statistics.fmean(v) for name in result.points if (v := result.of(name, features))}
    if len(means) < 2:
        return "Too few points were run to say anything."
    best = max(means, key=lambda name: means[name])
    if math.isnan(least_difference(result, features)):
        return f"Best of {len(means)}: {best}, {means[best]:.2f} %; one seed does not tell noise."
    rows = result.values[features]
    worse = sum(compare(result, [rows[best]], [rows[name]], features).word == "confirmed" for name in means)
    return (
        f"Best of {len(means)}: {best}, {means[best]:.2f} %; {worse} of the others are worse by more than noise, "
        f"the worst by {means[best] - min(means.values()):.2f} points."
    )


def untrained_sentence(result: GridResult) -> str:
    """What the same encoders get with random weights, and how many of the points are better; empty if not measured."""
    rows = {name: row for name in result.points if (row := result.untrained.get(name))}
    if not rows:
        return ""
    means = [statistics.fmean(row.values()) for row in rows.values()]
    level = f"{min(means):.2f} %" if max(means) - min(means) < 0.005 else f"{min(means):.2f} to {max(means):.2f} %"
    words = [compare(result, [result.values["h"][name]], [row]).word for name, row in rows.items()]
    return (
        f"Not pretrained, the same {'encoder gets' if len(set(means)) == 1 else 'encoders get'} {level}: "
        f"{words.count('confirmed')} of {len(words)} points are better by more than noise, "
        f"{words.count('refuted')} worse."
    )
