"""Parameters by component. What a component's parameters decide, it names; how, `model` and `identity` say."""

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from .errors import did_you_mean
from .paths import grid_names
from .registry import SPELLERS


def _number(value: Any) -> Any:
    # YAML and shells hand numbers over as text, which pydantic reads; a bool that counts as 1 is always a mistake.
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _split(value: Any) -> Any:
    return [part for part in value.replace(" ", "").split(",") if part] if isinstance(value, str) else value


def _data_set(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # as file names can be; a page could not show it
        raise ValueError("a path in UTF-8 is needed: rename it, or give a link to it") from None
    return "sklearn_digits" if value == "digits" else value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


class Component(BaseModel):
    """A group of parameters.

    VERSION is raised by hand whenever the same parameters come to give other numbers: it is part of a run's name.
    CHOICE is the field that users call by the component's own name, as in `encoder=cnn`. LOOSE are the fields that
    decide no weights, although the component does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    VERSION: ClassVar[int] = 1
    CHOICE: ClassVar[str] = ""
    LOOSE: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def leaves(cls, component: str) -> dict[str, str]:
        """What users call each parameter -> its field."""
        return {component if field == cls.CHOICE else field: field for field in cls.model_fields}

    def decisive(self) -> dict[str, Any]:
        """The values that decide a run's weights: those that are not the default, so that a parameter that is added
        with a default that changes nothing renames no run. (A default that changes raises VERSION.)"""
        usual = {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if name not in self.LOOSE and (getattr(self, name) != usual[name] or name == self.CHOICE)
        }


class DataSettings(Component):
    """Which images, and how they are read. They are named by their checksum, wherever they lie and however they were
    read."""

    LOOSE = frozenset({
        "dataset", "image_size", "fit", "background", "window", "label", "group", "split_seed", "skip_damaged",
        "drop_copies", "follow_links",
    })  # fmt: skip
    dataset: str = Field(
        "auto",
        description="auto, mnist, sklearn_digits or another name, or the path of a folder, an archive or an .npz file",
    )
    n_images: Int | None = Field(None, ge=2, description="unlabelled images (default: 5000, or all if there are fewer)")
    image_size: Int | None = Field(
        None,
        ge=8,
        le=1024,
        description="side of the square that images are brought to (default: from the data, at most 64)",
    )
    fit: Literal["crop", "pad", "stretch"] = Field("crop", description="how images of another shape get it")
    background: Literal["white", "black"] = Field("white", description="what shows through transparent images")
    window: str = Field(
        "auto", description="values of images of more than 8 bits that become black and white, as in 0:4095"
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="where images have several labels, the one that is asked about: its name, or its number from 0",
    )
    group: str | None = Field(
        None, description=r"regular expression for what stays on one side of a split, as in (patient\d+)"
    )
    split_seed: Int = Field(0, ge=0, lt=2**31, description="draws the test images of data that have none")
    skip_damaged: bool = Field(False, description="true: go on without files that cannot be read")
    drop_copies: bool = Field(False, description="true: leave out training images that are copies of test images")
    follow_links: bool = Field(False, description="true: follow links that lead out of the folder of the images")

    @field_validator("label", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("dataset")
    @classmethod
    def _long_name(cls, value: str) -> str:
        return _data_set(value)

    @field_validator("window")
    @classmethod
    def _two_numbers(cls, value: str) -> str:
        low, colon, high = value.partition(":")
        try:
            if value != "auto" and not (colon and -math.inf < float(low) < float(high) < math.inf):
                raise ValueError
        except ValueError:
            raise ValueError("auto, or two rising numbers are needed") from None
        return value

    @field_validator("group")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, RecursionError) as error:
            raise ValueError(f"no regular expression: {error}") from None
        return value or None


class ViewSettings(Component):
    """Random views of an image."""

    augment: str = Field(
        "auto", description="policy auto, simclr, handwriting, natural, grey or none; or changed: simclr-hflip+rotate"
    )
    second_augment: str | None = Field(None, description="policy of the second views (default: that of the first)")
    view_size: Int | None = Field(
        None,
        ge=8,
        le=1024,
        description="height of the views (default: that of the images; in preset quick a seventh less for digits)",
    )

    @field_validator("augment", "second_augment")
    @classmethod
    def _known_operations(cls, value: str | None) -> str | None:
        if value is not None:
            SPELLERS["policy"](value)
        return value

    def decisive(self) -> dict[str, Any]:
        """Policies spelled out: equal ones give equal names. Views that are smaller than the images have a version of
        their own: they were not smoothed once."""
        spelled = {n: SPELLERS["policy"](v) for n in ("augment", "second_augment") if (v := getattr(self, n))}
        return super().decisive() | spelled | ({} if self.view_size is None else {"shrunk": 2})


class EncoderSettings(Component):
    """What every encoder has; each adds its own."""

    CHOICE = "name"
    name: str = Field("cnn", description="the network whose features are kept")


class MethodSettings(Component):
    """What every method has; each adds its own."""

    CHOICE = "name"
    name: str = Field("simclr", description="how views become a loss")


class OptimiserSettings(Component):
    """How long, in which steps, and by what the weights are changed."""

    CHOICE = "name"
    name: str = Field("adam", description="adam, adamw or sgd")
    batch_size: Int = Field(128, ge=2, description="images per step")
    epochs: Int = Field(15, ge=1, description="passes over the unlabelled images")
    lr: Float = Field(5e-3, gt=0, le=10, description="peak learning rate")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="the learning rate after the warm-up")
    warmup_epochs: Float = Field(1, ge=0, description="epochs over which the learning rate rises from 0")
    weight_decay: Float = Field(1e-6, ge=0, le=1, description="L2 penalty on weight matrices (not on biases and norms)")


class RuntimeSettings(Component):
    """On what, how exactly, and from which random numbers it is computed."""

    LOOSE = frozenset({"checkpoint_seconds", "cuda_graph"})
    seed: Int = Field(0, ge=0, lt=2**31, description="decides the subset, the initial weights and every random draw")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 if in hardware")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    checkpoint_seconds: Float = Field(30, ge=0, le=86400, description="training time between two checkpoints, at least")
    cuda_graph: bool = Field(
        True, description="on a GPU, whether a step is captured once and replayed, which is faster"
    )

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (
            ":" in value and not (kind == "cuda" and index.isascii() and index.isdigit())
        ):
            raise ValueError(did_you_mean(value, ("auto", "cpu", "cuda", "cuda:0", "mps"), "device"))
        return value

    def decisive(self) -> dict[str, Any]:
        """Which kind of device, for each draws and rounds in its own way, but not which one of several."""
        return super().decisive() | {"device": self.device.partition(":")[0]}


class EvaluationSettings(Component):
    """What is measured of a run."""

    VERSION = 5
    CHOICE = "level"
    LOOSE = frozenset({"general", "weights", "general_size"})  # the network that they come to be counts
    budgets: tuple[Int, ...] | None = Field(
        None, description="numbers of labels to evaluate with (default: from the data; more if evaluation=full)"
    )
    label_draws: Int = Field(1, ge=1, le=20, description="draws of the labels of each budget up to a tenth of all")
    budget_draw: Literal["balanced", "random"] = Field(
        "balanced", description="balanced: as many labels of each class; random: as they come, which needs no label"
    )
    level: Literal["basic", "full"] = Field(
        "basic", description="full: also more controls, corrupted images, the ImageNet network fine-tuned"
    )
    transfer: str | None = Field(None, description="another data set to try the frozen encoder on")
    general: str = Field(
        "auto",
        description="frozen network pretrained on other images, to compare with: auto (EfficientNet-Lite0, if it is "
        "installed), none, efficientnet_lite0, torchvision:NAME or timm:NAME",
    )
    weights: str | None = Field(None, description="file with the weights of that network (default: what is installed)")
    general_size: Int | None = Field(
        None, ge=32, le=1024, description="pixels to which images are enlarged for it (default: the network's; 112)"
    )
    supervised_steps: Int = Field(
        600, ge=1, description="least training steps of each network that is trained on labels"
    )

    @field_validator("budgets", mode="before")
    @classmethod
    def _read_budgets(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else _split(value)

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 2):
            raise ValueError("each number of labels has to be at least 2")
        return value and tuple(sorted(set(value)))

    @field_validator("transfer")
    @classmethod
    def _long_name(cls, value: str | None) -> str | None:
        return value and _data_set(value)


class ReportSettings(Component):
    """What a report is made of."""

    n_seeds: Int = Field(1, ge=1, le=100, description="pretraining runs, with seeds seed, seed+1, ...")
    label_first: Int = Field(50, ge=1, le=1000, description="images to propose for labelling, where some have no label")
    map_images: Int = Field(2000, ge=8, le=10_000, description="images on the map of 02_linear_eval, at most")


class AblationSettings(Component):
    """The grids of 03_ablations, and the size of their runs."""

    grids: tuple[str, ...] = Field(
        ("left_out", "temperature"), description="what 03_ablations varies: names of notebooks/grids, or all"
    )
    ablation_epochs: Int = Field(4, ge=1, description="epochs of each point of 03_ablations, where they do not vary")
    ablation_base_channels: Int = Field(
        12, ge=1, le=1024, description="base_channels of each point of 03_ablations, where its encoder has them"
    )
    ablation_labels: Int = Field(
        1000, ge=2, description="labels of each of the probes that judge a point of 03_ablations"
    )
    ablation_seeds: Int = Field(2, ge=1, le=100, description="seeds of each point of 03_ablations")
    ablation_jobs: Int | None = Field(
        None, ge=1, le=256, description="processes for the runs of 03_ablations (default: as many as pay, up to 4)"
    )

    @field_validator("grids", mode="before")
    @classmethod
    def _read_grids(cls, value: Any) -> Any:
        return _split(value)

    @field_validator("grids")
    @classmethod
    def _check_grids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = grid_names()
        if not value:
            raise ValueError("at least one grid is needed")
        for name in value:
            if name not in (*known, "all") and known:  # without a checkout none is known, and none can be run
                raise ValueError(did_you_mean(name, [*known, "all"], "grid"))
        return tuple(dict.fromkeys(value))
