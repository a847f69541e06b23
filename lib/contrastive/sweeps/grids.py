"""Grids of settings, as YAML files: read and checked."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..data import read_images, why_no_validation
from ..settings import (
    EvaluationSettings,
    Settings,
    UserError,
    checkout,
    decisive_parameters,
    did_you_mean,
    grid_names,
    grids_folder,
    parameters,
    rebased,
)
from ..storage.tensors import hash_tensors
from ..training import SHRINKING, n_labels_beside_validation, resolve

MAX_RUNS = 10_000  # more is a mistake
JUDGED_ON = "judged_on"  # in a side of a claim: h or z
REPORTED = tuple(EvaluationSettings.leaves("evaluation"))  # what a report depends on besides
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
    labels: Annotated[int, Field(ge=2)] = 1000
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
    # what the user gave, so that it is refused rather than made smaller
    asked: Annotated[frozenset[str], Field(exclude=True)] = frozenset()

    @property
    def varied(self) -> set[str]:
        """The parameters in which its points differ."""
        return {*self.vary, *itertools.chain(*self.points)}

    @property
    def combinations(self) -> list[dict[str, Value]]:
        """What each point varies: every combination, then those that are listed."""
        every = itertools.product(*self.vary.values()) if self.vary else ()
        return [dict(zip(self.vary, values, strict=True)) for values in every] + self.points


@dataclass(frozen=True)
class Point:
    """One combination: what it varies, and its settings, resolved, with the first seed."""

    name: str
    varied: dict[str, Value]
    settings: Settings


def load_grid(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid in a YAML file, or the one of that name among those that come with the project.

    overrides: settings that its base is to have, and `seeds` and `labels`. With another method or encoder, what the
    base says of the one before has no meaning, and goes. Raises: UserError.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        known = grid_names()
        if str(source) not in known:
            raise UserError(
                did_you_mean(str(source), known, "grid") + " A grid of your own is a file that ends in .yaml."
            )
        path = grids_folder() / f"{source}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the grid {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no grid: it needs title, and vary or points.")
    parts = [name for name in Grid.model_fields if name != "asked"]
    for name in content:
        if name not in parts:
            raise UserError(f"{path}: {did_you_mean(name, parts, 'part of a grid')}")
    changes = dict(overrides or {})
    base = content.get("base") or {}
    own_file = path.parent != (grids_folder() if checkout() else None)
    content["asked"] = {
        *changes,
        *(base if own_file and isinstance(base, dict) else ()),
        *(content if own_file else ()),
    }
    content |= {name: changes.pop(name) for name in OWN if name in changes}
    try:
        grid = Grid(
            **{
                "name": re.sub(r"\W+", "_", path.stem)[:60] or "grid",
                **content,
                "base": rebased(base, changes) if isinstance(base, dict) else base,
            }
        )
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    if not grid.vary and not grid.points:
        raise UserError(f"{path} varies nothing: it needs vary or points.")
    if "n_seeds" in {*grid.base, *grid.varied}:
        raise UserError(f"grid {grid.name}: say how many seeds with seeds (or -p seeds=5), not with n_seeds.")
    for name in changes:
        if name in grid.varied:
            raise UserError(
                f"grid {grid.name} varies {name} itself, so {name}={changes[name]} would leave it comparing something "
                "else. A copy of its file can be changed at will."
            )
    return grid


def _explain(error: ValidationError) -> str:
    """What is wrong first. Of a misspelt part, that it is unknown says more than that another one is missing."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{where}: {did_you_mean(str(first['loc'][-1]), Claim.model_fields, 'part of a claim')}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}."


def grid_points(grid: Grid, reports: bool = False) -> dict[str, Point]:
    """All points of a grid by name, every setting checked against the data. Two of the same settings are one.

    reports: whether points are reports, rather than trainings that are judged on validation images, to which settings
    of the evaluation do nothing. Raises: UserError that names grid, point and parameter.
    """
    if math.prod(map(len, grid.vary.values())) > MAX_RUNS:
        raise UserError(f"grid {grid.name} has more than {MAX_RUNS:,} points.")
    if "seed" in grid.varied:
        raise UserError(f"grid {grid.name} varies seed: say how many there are with seeds, and the first one in base.")
    if idle := grid.varied & set(parameters()) - {"preset", *decisive_parameters(), *(REPORTED if reports else ())}:
        hint = " A report for each point shows what it does: --reports." if min(idle) in REPORTED else ""
        raise UserError(f"grid {grid.name} varies {min(idle)}, which changes nothing of its points.{hint}")
    different: dict[tuple[str, ...], Point] = {}
    left_out: list[dict[str, Value]] = []
    same_images: set[str] = set()
    why = ""
    for varied in grid.combinations:
        name = ", ".join(
            grid.names.get(word(value), f"{key.replace('_', ' ')} {word(value)}") for key, value in varied.items()
        )
        try:
            asked = settings_of(grid, varied)  # a mistake in the grid, whatever the data
            try:
                settings, images = resolve(asked)
            except UserError as mistake:
                if not grid.optional:
                    raise
                left_out.append(varied)
                why = str(mistake)
                continue
        except UserError as mistake:
            raise UserError(f"grid {grid.name}, point {name}: {mistake}") from None
        of_images = {name: getattr(images, name) for name in ("train_labels", "validation", "groups")}
        same_images.add(hash_tensors(of_images))
        same = settings.identity, *(str(settings.flat()[name]) for name in (REPORTED if reports else ()))
        different.setdefault(same, Point(name, varied, settings))
    found = {point.name: point for point in different.values()}
    if len({point.settings.data.dataset for point in found.values()}) > 1 or len(same_images) > 1:
        raise UserError(f"grid {grid.name}: all points have to be of the same images, since they are compared.")
    if not found:
        raise UserError(f"grid {grid.name}: the data can serve none of its points: {why}")
    for claim in grid.claims:
        for side in (claim.better, claim.worse):
            _check_side(side, [*(point.varied for point in found.values()), *left_out], grid)
    first = next(iter(found.values())).settings
    n_rest = _labels_to_judge(first, grid.seeds)
    if grid.labels > n_rest and not reports:
        raise UserError(f"grid {grid.name}: labels={grid.labels}: there are only {n_rest:,} beside validation.")
    return found


def _labels_to_judge(settings: Settings, seeds: int) -> int:
    """How many labels there are, with any of so many seeds, beside those of the validation images. Raises: UserError
    when nothing can be judged."""
    images = read_images(settings.data)
    if why := why_no_validation(images):
        raise UserError(f"{why} A grid's points are judged by labels.")
    return n_labels_beside_validation(settings.replace(n_seeds=1, ablation_seeds=seeds), images)


def with_labels_that_are_there(grid: Grid) -> Grid:
    """The grid; with fewer labels, if its own number is more than there are and nobody asked for it."""
    for varied in () if "labels" in grid.asked else grid.combinations:
        try:
            n_rest = _labels_to_judge(resolve(settings_of(grid, varied))[0], grid.seeds)
        except UserError:  # which is told where all points are looked at
            continue
        return grid if grid.labels <= n_rest else grid.model_copy(update={"labels": n_rest})
    return grid


def settings_of(grid: Grid, varied: Mapping[str, Value]) -> Settings:
    """The settings of a point, not yet resolved: numbers that the grid alone says may shrink to what there is."""
    settings = Settings(**{**grid.base, **varied, "n_seeds": grid.seeds})
    asked = {*grid.asked, *varied, *(set(grid.base) - set(SHRINKING))}
    if "n_images" in varied and settings.optimiser.batch_size <= (settings.data.n_images or 0):
        asked.add("batch_size")  # the same for all numbers of images, or their steps could not be compared
    return settings.asking(asked)


def word(value: Value) -> str:
    """A value in the name of a point."""
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
    return all(key in varied and word(varied[key]) == word(value) for key, value in asked.items())


def _check_side(side: Mapping[str, Value], points: Sequence[Mapping[str, Value]], grid: Grid) -> None:
    """Raises: UserError when a side of a claim is about no point, or about features that are not judged."""
    if not any(_has(varied, side) for varied in points):
        asked = ", ".join(f"{key} {word(value)}" for key, value in side.items() if key != JUDGED_ON)
        raise UserError(f"grid {grid.name}: a claim is about {asked}, but there is no such point.")
    if (kind := side.get(JUDGED_ON, "h")) not in grid.features:
        raise UserError(f"grid {grid.name}: a claim is judged on {kind}, but features has {', '.join(grid.features)}.")
