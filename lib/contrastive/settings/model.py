"""Every parameter of a run: typed, checked, with presets, and the name that they give the run.

Fields above `n_seeds` decide what the encoder's weights become, and their canonical JSON, hashed, names the run.
The others only decide what is measured afterwards, so changing one never trains anything again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

# Operations of an augmentation policy: their numbers, each with its least, its largest and its usual value
OPERATIONS: dict[str, dict[str, tuple[float, float, float]]] = {
    "hflip": {"probability": (0, 1, 0.5)},
    "crop": {"least share of the area": (0.01, 1, 0.08), "largest share": (0.01, 1, 1)},
    "rotate": {"degrees to either side": (0, 180, 15)},
    "scale": {"least zoom": (0.1, 10, 0.8), "largest zoom": (0.1, 10, 1.25)},
    "shear": {"degrees to either side": (0, 60, 15)},
    "shift": {"share of the side, each way": (0, 1, 0.1)},
    "elastic": {"standard deviation, as a share of the side": (0, 1, 0.04)},
    "stroke": {"pixels on each side of a stroke": (0, 1, 0.5)},
    "jitter": {
        "brightness": (0, 1, 0.4),
        "contrast": (0, 1, 0.4),
        "saturation": (0, 1, 0.4),
        "hue": (0, 0.5, 0.1),
    },
    "blur": {"least standard deviation in pixels": (0, 10, 0.1), "largest": (0, 10, 2)},
    "noise": {"largest standard deviation": (0, 1, 0.1)},
    "grayscale": {"probability": (0, 1, 0.2)},
    "erase": {"share of the side": (0, 1, 0.3)},
}

POLICIES = {
    # The recipe as written, with the ranges of the SimCLR paper (2002.05709, appendix A; strength 0.5 as on
    # small images): the crop's area, and probabilities of 0.5, 0.8, 0.5 and 0.2.
    "simclr": "hflip:0.5+crop:0.08:1+jitter:0.4:0.4:0.4:0.1+blur:0.1:2+grayscale:0.2",
    # What suits digits: upright but slightly turned and slanted, never mirrored, all strokes in the picture, and these
    # thinner or thicker (chosen on validation images: notebooks/grids/recipe.yaml).
    "digits": "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0",
    "none": "",
}

# How the long presets are evaluated
SEVERAL: dict[str, Any] = dict(
    n_seeds=5, label_draws=2, evaluation="full", supervised_steps=2000, ablation_epochs=10, ablation_seeds=3,
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    # Seconds on bundled data: shows that everything works, not how well.
    "smoke": dict(
        dataset="digits", n_images=512, epochs=4, batch_size=128, width=8, budgets=(100, 600), supervised_steps=40,
        grids=("left_out",), ablation_epochs=1, ablation_width=4, ablation_labels=300, ablation_seeds=1,
    ),
    # Minutes on two cores: what `make report` runs. These are the defaults of the fields below.
    "quick": {},
    # The recipe as written, over several seeds: hours on two cores.
    "full": dict(
        augment="simclr", epochs=500, batch_size=256, lr=1e-3, temperature=0.5, warmup_epochs=10,
        grids=("all",), **SEVERAL,
    ),
    # The recipe for digits, longer, with views of 24 pixels, which cost a quarter less.
    "digits": dict(
        epochs=150, warmup_epochs=5, view_size=24,
        grids=("left_out", "flip_blur", "temperature", "head", "n_images", "recipe"), **SEVERAL,
    ),
}  # fmt: skip


class UserError(ValueError):
    """A foreseeable mistake. Its message is one line that says what was wrong and what to do."""


class RunError(UserError):
    """What went wrong after the start, through no mistake in the request: a full disk, a diverged training. Its message
    is one line, too; what had been finished is kept."""


def nearest(name: str, options: Any, what: str) -> str:
    """One line for an unknown `name`: the nearest spelling, if any is near, and all allowed ones."""
    close = get_close_matches(str(name), list(options), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {str(name)!r}.{hint} Choose one of: {', '.join(options)}."


def parse_policy(text: str) -> dict[str, tuple[float, ...]]:
    """An augmentation policy -> operation -> its numbers, in the order of OPERATIONS, which is that of application.

    A policy is a name of POLICIES or an operation, to which others are added and from which they are taken away, each
    with its usual numbers or with numbers of its own: `simclr-hflip`, `digits+elastic:0.05`, `crop:0.3:1+blur`.
    Raises: ValueError.
    """
    chosen: dict[str, tuple[float, ...]] = {}
    first, *rest = re.split(r"([+-])", text)
    if first in POLICIES:
        chosen = parse_policy(POLICIES[first]) if POLICIES[first] else {}
    else:
        rest = ["+", first, *rest]
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        op, *numbers = term.split(":")
        if op not in OPERATIONS or (sign == "-" and op not in chosen):
            known = [*OPERATIONS, *POLICIES] if term == first else OPERATIONS if sign == "+" else chosen
            raise ValueError(nearest(op, known, f"operation of the augmentation policy {text!r}:"))
        if sign == "-" and not numbers:
            del chosen[op]
            continue
        asked = OPERATIONS[op]
        values = numbers or [str(usual) for *_, usual in asked.values()]
        if sign == "-" or len(values) != len(asked):
            raise ValueError(f"{sign}{term}: {op} takes {len(asked)} numbers, {', '.join(asked)}, as in {_usual(op)}")
        for value, (what, (low, high, _)) in zip(values, asked.items(), strict=True):
            if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", value) or not low <= float(value) <= high:
                raise ValueError(f"{term}: {what} has to be a number from {low:g} to {high:g}, as in {_usual(op)}")
        chosen[op] = tuple(float(value) for value in values)
        if op in ("crop", "scale", "blur") and chosen[op][0] > chosen[op][1]:
            raise ValueError(f"{term}: the first number has to be the smaller one")
    return {op: chosen[op] for op in OPERATIONS if op in chosen}


def _usual(op: str) -> str:
    return ":".join([op, *(f"{usual:g}" for *_, usual in OPERATIONS[op].values())])


def spell_policy(text: str) -> str:
    """The same policy with every operation and number written out: equal policies give equal texts."""
    ranges = parse_policy(text)
    return "+".join(":".join([op, *(f"{value:g}" for value in values)]) for op, values in ranges.items()) or "none"


def _number(value: Any) -> Any:
    # YAML and shells hand numbers over as text, which pydantic reads; a bool that counts as 1 is always a mistake.
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """All parameters of a report. `Settings(preset="smoke", seed=1)` is the preset with one value changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    preset: str = Field("quick", description="the values that the others start from: smoke, quick, digits or full")

    dataset: str = Field(
        "auto", description="auto, mnist, digits, or the path of a folder of images or IDX files, or of an .npz file"
    )
    n_images: Int | None = Field(None, ge=2, description="unlabelled images (default: 5000, or all if there are fewer)")
    method: Literal["simclr"] = Field("simclr", description="how views become a loss")
    encoder: Literal["cnn"] = Field("cnn", description="the network whose features are kept")
    features: Literal["map", "mean"] = Field("map", description="the encoder's last map, whole or averaged over places")
    width: Int = Field(32, ge=1, le=1024, description="channels of the encoder's first layer; the next have 2x and 4x")
    head: Literal["mlp", "linear", "none"] = Field("mlp", description="the projection head, used in pretraining only")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what the head puts out")
    augment: str = Field("digits", description="policy simclr, digits or none; changed as in simclr-hflip+rotate:15")
    second_augment: str | None = Field(None, description="policy of the second views (default: that of the first)")
    view_size: Int | None = Field(None, ge=16, le=1024, description="height of the views (default: that of the images)")
    loss: Literal["nt_xent", "nt_logistic", "nt_logistic_semi_hard", "margin_triplet", "margin_triplet_semi_hard"] = (
        Field("nt_xent", description="what makes views of one image agree")
    )
    l2_normalize: bool = Field(True, description="whether the loss compares directions only, by cosine")
    temperature: Float = Field(1.0, gt=0, le=100, description="of NT-Xent and NT-Logistic; a triplet loss's margin")
    batch_size: Int = Field(128, ge=2, description="images per step; each gives two views")
    epochs: Int = Field(15, ge=1, description="passes over the unlabelled images")
    lr: Float = Field(5e-3, gt=0, le=10, description="Adam's peak learning rate")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="the learning rate after the warm-up")
    warmup_epochs: Float = Field(1, ge=0, description="epochs over which the learning rate rises from 0")
    weight_decay: Float = Field(1e-6, ge=0, le=1, description="L2 penalty on weight matrices (not on biases and norms)")
    seed: Int = Field(0, ge=0, lt=2**31, description="decides the subset, the initial weights and every random draw")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 if in hardware")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")

    n_seeds: Int = Field(1, ge=1, le=100, description="pretraining runs, with seeds seed, seed+1, ...")
    budgets: tuple[Int, ...] | None = Field(
        None,
        description="numbers of labels to evaluate with (default: 100,600,5000,30000 and all; more if evaluation=full)",
    )
    label_draws: Int = Field(1, ge=1, le=20, description="draws of the labels of each budget up to 5,000")
    evaluation: Literal["basic", "full"] = Field(
        "basic", description="full: also fine-tuning, more controls, corrupted images"
    )
    transfer: str | None = Field(None, description="another data set to try the frozen encoder on, such as digits")
    supervised_steps: Int = Field(
        600, ge=1, description="least training steps of each network that is trained on labels"
    )
    checkpoint_seconds: Float = Field(30, ge=0, le=86400, description="training time between two checkpoints, at least")
    grids: tuple[str, ...] = Field(
        ("left_out", "temperature"), description="what 03_ablations varies: names of notebooks/grids, or all"
    )
    ablation_epochs: Int = Field(4, ge=1, description="epochs of each point of 03_ablations, where they do not vary")
    ablation_width: Int = Field(12, ge=1, le=1024, description="encoder width of each point of 03_ablations")
    ablation_labels: Int = Field(
        1000, ge=20, description="labels of each of the probes that judge a point of 03_ablations"
    )
    ablation_seeds: Int = Field(2, ge=1, le=100, description="seeds of each point of 03_ablations")
    ablation_jobs: Int = Field(
        1, ge=1, le=256, description="processes for the runs of 03_ablations, each with its share of the threads"
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, given: Any) -> Any:
        for name in given:
            if name not in cls.model_fields:
                raise ValueError(nearest(name, cls.model_fields, "parameter"))
        preset = given.get("preset", "quick")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(nearest(preset, PRESETS, "preset"))
        return {**PRESETS[preset], **given}

    @field_validator("budgets", mode="before")
    @classmethod
    def _read_budgets(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part for part in value.replace(" ", "").split(",") if part]
        return [value] if isinstance(value, int) else value

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 2):
            raise ValueError("each number of labels has to be at least 2")
        return value and tuple(sorted(set(value)))

    @field_validator("grids", mode="before")
    @classmethod
    def _read_grids(cls, value: Any) -> Any:
        return [part for part in value.replace(" ", "").split(",") if part] if isinstance(value, str) else value

    @field_validator("grids")
    @classmethod
    def _check_grids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = grid_names()
        if not value:
            raise ValueError("at least one grid is needed")
        for name in value:
            if name not in (*known, "all") and known:  # without a checkout none is known, and none can be run
                raise ValueError(nearest(name, [*known, "all"], "grid"))
        return tuple(dict.fromkeys(value))

    @field_validator("augment", "second_augment")
    @classmethod
    def _check_augment(cls, value: str | None) -> str | None:
        if value is not None:
            parse_policy(value)
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (
            ":" in value and not (kind == "cuda" and index.isascii() and index.isdigit())
        ):
            raise ValueError(nearest(value, ("auto", "cpu", "cuda", "cuda:0", "mps"), "device"))
        return value

    def but(self, **changes: Any) -> Settings:
        """The same settings with some values changed, checked again."""
        return make_settings(**{**self.model_dump(), **changes})

    def canonical_json(self) -> str:
        """The parameters that decide the weights, as JSON with sorted keys and policies spelled out."""
        decisive = {name: getattr(self, name) for name in RUN_FIELDS}
        decisive["augment"] = spell_policy(self.augment)
        decisive["second_augment"] = self.second_augment and spell_policy(self.second_augment)
        return json.dumps(decisive, sort_keys=True)

    @property
    def run_name(self) -> str:
        """Name of the run with these settings, e.g. `mnist-simclr-cnn-15ep-s0-1a2b3c4d`. Resolve them first."""
        digest = hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]
        data = "".join(c if c.isalnum() else "_" for c in Path(self.dataset).name)[:32] or "data"
        return f"{data}-{self.method}-{self.encoder}-{self.epochs}ep-s{self.seed}-{digest}"


_names = list(Settings.model_fields)
RUN_FIELDS = tuple(_names[_names.index("dataset") : _names.index("n_seeds")])


def explain(error: ValidationError) -> str:
    """The first problem of a pydantic error as one line: parameter, what is wrong, what is allowed."""
    first = error.errors()[0]
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return said
    name = str(first["loc"][0])
    allowed = get_args(Settings.model_fields[name].annotation)
    if first["type"] == "literal_error":
        return nearest(first["input"], allowed, name)
    if said.startswith("unknown "):
        return said
    field = Settings.model_fields[name]
    return f"parameter {name}={first['input']!r}: {said[0].lower()}{said[1:]} ({field.description})."


def make_settings(**given: Any) -> Settings:
    """`Settings(...)`, with a mistake told as one line. Raises: UserError."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise UserError(explain(error)) from None


def notebook_settings(namespace: dict[str, Any]) -> Settings:
    """The settings that a notebook's `parameters` cell asks for: pass it `globals()`. None means the preset's value.

    papermill only warns of a parameter that the notebook lacks; here a name that it injected and that is not a
    setting is an error. Raises: UserError.
    """
    given = {name: namespace[name] for name in Settings.model_fields if namespace.get(name) is not None}
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):  # papermill's first line of the cell that it injects
            lines = (line.partition(" = ") for line in cell.splitlines()[1:])
            given |= {
                name: namespace[name] for name, equals, _ in lines if equals and name not in Settings.model_fields
            }
    return make_settings(**given)


def checkout() -> Path | None:
    """The root of the source checkout that this package is used from, or None when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "notebooks").is_dir() and (root / "pyproject.toml").is_file() else None


def grids_folder() -> Path:
    """Where the grids lie that come with the project. Raises: UserError when it is used without its checkout."""
    root = checkout()
    if root is None:
        raise UserError("the grids are not installed with the package: run this from a checkout of the project.")
    return root / "notebooks" / "grids"


def grid_names() -> list[str]:
    """The names of these grids; none without a checkout."""
    return sorted(path.stem for path in grids_folder().glob("*.yaml")) if checkout() else []


def folder_from_environment(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else `default` in the checkout (or the current folder).

    A relative path counts from the current folder and, if there is nothing there, from the checkout, so that a
    notebook's kernel, which starts inside `notebooks/`, finds the same folder as the command line.
    """
    path = Path(os.path.expanduser(os.environ.get(variable) or default))
    root = checkout()
    if path.is_absolute() or root is None or (os.environ.get(variable) and path.exists()):
        return path.absolute()
    return root / path


def data_root() -> Path:
    """Where data sets lie and are downloaded to: `$CONTRASTIVE_DATA`, else `data/`."""
    return folder_from_environment("CONTRASTIVE_DATA", "data")


def runs_root() -> Path:
    """Where runs are kept: `$CONTRASTIVE_RUNS`, else `runs/`."""
    return folder_from_environment("CONTRASTIVE_RUNS", "runs")
