"""Parameters that decide no weights, by component: what is measured of runs, and what a report is made of."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from .components import Component, Float, Int, data_set, split_words
from .errors import did_you_mean
from .paths import grid_names
from .registry import ENCODERS, METHODS


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
        return [value] if isinstance(value, int) else split_words(value)

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 2):
            raise ValueError("each number of labels has to be at least 2")
        return value and tuple(sorted(set(value)))

    @field_validator("transfer")
    @classmethod
    def _long_name(cls, value: str | None) -> str | None:
        return value and data_set(value)


class ReportSettings(Component):
    """What a report is made of."""

    n_seeds: Int = Field(1, ge=1, le=100, description="pretraining runs, with seeds seed, seed+1, ...")
    label_first: Int = Field(50, ge=1, le=1000, description="images to propose for labelling, where some have no label")
    map_images: Int = Field(2000, ge=8, le=10_000, description="images on the map of 02_linear_eval, at most")


class ComparisonSettings(Component):
    """What 04_methods compares, and the size of its runs."""

    methods: tuple[str, ...] = Field(
        ("all",), description="methods that 04_methods compares; all: every one that needs no label"
    )
    encoders: tuple[str, ...] | None = Field(
        None, description="encoders that it compares, each with every method (default: the report's own)"
    )
    method_seeds: Int = Field(3, ge=1, le=100, description="runs of each method with each encoder")
    method_epochs: Int | None = Field(None, ge=1, description="epochs of each of these runs (default: the report's)")
    minutes: Float | None = Field(
        None, gt=0, le=10_000, description="minutes of training for each of these runs, in place of epochs"
    )
    method_jobs: Int | None = Field(
        None, ge=1, le=256, description="processes for the runs of 04_methods (default: as many as pay, up to 4)"
    )

    @field_validator("minutes")
    @classmethod
    def _in_place_of_epochs(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("method_epochs") is not None:
            raise ValueError("method_epochs was given, too. Leave one of them out")
        return value

    @field_validator("methods", "encoders", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        return split_words(value)

    @field_validator("methods", "encoders")
    @classmethod
    def _check_names(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not value:
            raise ValueError(f"at least one is needed of {info.field_name}")
        registry = METHODS if info.field_name == "methods" else ENCODERS
        for name in value:
            if name != "all" or registry is ENCODERS:
                registry[name]
        return tuple(dict.fromkeys(value))


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
        return split_words(value)

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
