"""Parameters by component: those that decide a run's weights. The others are in `reporting`.

What a component's parameters decide, it names; how, `model` and `run_names` say.
"""

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from .errors import did_you_mean
from .registry import SPELLERS


def _number(value: Any) -> Any:
    # YAML and shells hand numbers over as text, which pydantic reads; a bool that counts as 1 is always a mistake.
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def split_words(value: Any) -> Any:
    """The words of a text that lists them; anything else as it is."""
    return [part for part in value.replace(" ", "").split(",") if part] if isinstance(value, str) else value


def data_set(value: str) -> str:
    """A data set's long name. Raises: ValueError for a path that no page could show."""
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
        return data_set(value)

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
    local_views: Int | None = Field(
        None, ge=0, le=16, description="small views of each image beside the two, multi-crop (default: by the method)"
    )
    local_view_size: Int | None = Field(
        None, ge=8, le=1024, description="height of the small views (default: half of the others', if the encoder can)"
    )
    local_augment: str | None = Field(
        None, description="policy of the small views (default: that of the first views, with smaller crops)"
    )

    @field_validator("augment", "second_augment", "local_augment")
    @classmethod
    def _known_operations(cls, value: str | None) -> str | None:
        if value is not None:
            SPELLERS["policy"](value)
        return value

    def decisive(self) -> dict[str, Any]:
        """Policies spelled out: equal ones give equal names. Views that are smaller than the images have a version of
        their own: they were not smoothed once."""
        policies = ("augment", "second_augment", "local_augment")
        spelled = {name: SPELLERS["policy"](value) for name in policies if (value := getattr(self, name))}
        found = super().decisive() | spelled | ({} if self.view_size is None else {"shrunk": 2})
        return found if self.local_views else {k: v for k, v in found.items() if not k.startswith("local_")}


class EncoderSettings(Component):
    """What every encoder has; each adds its own."""

    CHOICE = "name"
    LOOSE = frozenset({"initial_weights"})  # their checksum counts, wherever they lie
    name: str = Field("cnn", description="the network whose features are kept")
    initial_weights: str = Field(
        "random",
        description="where pretraining starts: random, imagenet (where such weights are on the disk), or a file",
    )
    initial_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="checksum of these weights (default: what their file has)"
    )


class MethodSettings(Component):
    """What every method has; each adds its own."""

    CHOICE = "name"
    name: str = Field("simclr", description="how views become a loss")


class OptimiserSettings(Component):
    """How long, in which steps, and by what the weights are changed."""

    CHOICE = "name"
    name: str = Field("adam", description="adam, adamw, sgd or lars")
    batch_size: Int = Field(128, ge=2, description="images per step")
    epochs: Int = Field(15, ge=1, description="passes over the unlabelled images")
    lr: Float = Field(5e-3, gt=0, le=10, description="peak learning rate (lars needs about 0.2 for 256 images a batch)")
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
