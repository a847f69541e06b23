"""All parameters of a report: components inside, flat names for the command line, YAML and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from . import components as c
from . import reporting as r
from .components import Component, EncoderSettings, MethodSettings
from .errors import UserError, did_you_mean
from .presets import PRESETS, preset_values
from .registry import ENCODERS, METHODS, OPTIMISERS, Registry
from .run_names import DECISIVE, identity, run_name

# Components whose name chooses a class, which brings parameters of its own
CHOICES: dict[str, Registry] = {"encoder": ENCODERS, "method": METHODS}
FIXED: dict[str, type[Component]] = {
    "data": c.DataSettings, "views": c.ViewSettings, "optimiser": c.OptimiserSettings, "runtime": c.RuntimeSettings,
    "evaluation": r.EvaluationSettings, "report": r.ReportSettings, "ablations": r.AblationSettings,
    "comparison": r.ComparisonSettings,
}  # fmt: skip
ORDER = (
    "data",
    "views",
    "encoder",
    "method",
    "optimiser",
    "runtime",
    "evaluation",
    "report",
    "ablations",
    "comparison",
)
RENAMED = {"width": "base_channels", "features": "pool", "ablation_width": "ablation_base_channels"}


class Settings(BaseModel):
    """All parameters of a report, by component.

    They are given flat: `Settings(preset="smoke", seed=1)` is the preset with one value changed, and its seed is
    `settings.runtime.seed`. A parameter that belongs to a method or an encoder counts where that is chosen.

    Args:
        preset: the values that the others start from: smoke, quick, digits or full.
        parameters: any others, by the names that `parameters` lists.

    Raises:
        UserError: one line that names the parameter, what is wrong with it, and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    data: c.DataSettings
    views: c.ViewSettings
    encoder: SerializeAsAny[EncoderSettings]
    method: SerializeAsAny[MethodSettings]
    optimiser: c.OptimiserSettings
    runtime: c.RuntimeSettings
    evaluation: r.EvaluationSettings
    report: r.ReportSettings
    ablations: r.AblationSettings
    comparison: r.ComparisonSettings
    data_sha256: str = Field("", description="checksum of the images, once they are known")
    asked: frozenset[str] = Field(frozenset(), description="parameters that were given, rather than the preset's")

    def __init__(self, /, **parameters: Any) -> None:
        super().__init__(**_by_component(parameters), asked=frozenset(parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.flat(), self.data_sha256, self.asked)

    def __eq__(self, other: object) -> bool:  # whoever asked for what: the values count
        return isinstance(other, Settings) and self.__reduce__()[1][:2] == other.__reduce__()[1][:2]

    def __hash__(self) -> int:
        return hash((tuple(self.flat().items()), self.data_sha256))

    def flat(self) -> dict[str, Any]:
        """Every parameter by the name that users give it, in order."""
        values: dict[str, Any] = {"preset": self.preset}
        for name in ORDER:
            component = getattr(self, name)
            values |= {leaf: getattr(component, field) for leaf, field in component.leaves(name).items()}
        return values

    def as_json(self) -> dict[str, Any]:
        """`flat`, in values that JSON has."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.flat().items()}

    def replace(self, **changes: Any) -> Settings:
        """The same settings with some values changed, as `rebased` does it, checked again. Raises: UserError."""
        before = self.data.model_dump(exclude={"n_images"})
        same_images = all(before[name] == value for name, value in changes.items() if name in before)
        data_sha256 = self.data_sha256 if same_images else ""
        return _restored(rebased(self.flat(), changes), data_sha256, self.asked | changes.keys())

    def asking(self, names: Iterable[str]) -> Settings:
        """The same settings, of which only these count as asked for."""
        return self.model_copy(update={"asked": frozenset(names)})

    def found(self, data_sha256: str, **values: Any) -> Settings:
        """The same settings with values that nobody asked for, but that were found for images with that checksum."""
        return _restored(rebased(self.flat(), values), data_sha256, self.asked)

    @property
    def run_name(self) -> str:
        """Name of the run with these settings; see `run_names.run_name`."""
        return run_name(self)

    @property
    def identity(self) -> str:
        """What decides the run's weights; see `run_names.identity`."""
        return identity(self)


def _restored(flat: dict[str, Any], data_sha256: str, asked: frozenset[str]) -> Settings:
    return Settings(**flat).model_copy(update={"data_sha256": data_sha256, "asked": asked})


def rebased(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Flat parameters with some values changed. Those of a method or an encoder that is no longer chosen go with it,
    also those whose names the new one shares. Raises: UserError for one that there is not."""
    kept = dict(values)
    for component in filter(changes.__contains__, CHOICES):
        before = _chosen(component, values)
        if _chosen(component, changes) is not before:
            kept = {name: value for name, value in kept.items() if name not in before.leaves(component)}
    return {**kept, **changes}


def parameters() -> dict[str, str]:
    """Every parameter -> its description, of all encoders and methods that there are."""
    found = {"preset": f"the values that the others start from: {', '.join(PRESETS)}"}
    for component in ORDER:
        for cls in _all_classes(component):
            for leaf, field in cls.leaves(component).items():
                found.setdefault(leaf, str(cls.model_fields[field].description))
    return found


def as_text(value: Any) -> str:
    """A value as `-p` takes it."""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def decisive_parameters() -> set[str]:
    """The parameters that decide a run's weights; those of the images do it by what these come to be."""
    return {
        leaf
        for component in DECISIVE
        for cls in _all_classes(component)
        for leaf, field in cls.leaves(component).items()
        if field not in cls.LOOSE or component == "data"
    }


def _all_classes(component: str) -> list[type[Component]]:
    registry = CHOICES.get(component)
    return [FIXED[component]] if registry is None else [registry[name].Parameters for name in registry]


def _chosen(component: str, values: Mapping[str, Any]) -> type[Component]:
    return CHOICES[component][str(values.get(component, _usual(component)))].Parameters


def _usual(component: str) -> str:
    base = EncoderSettings if component == "encoder" else MethodSettings
    return str(base.model_fields["name"].default)


def _classes(values: Mapping[str, Any]) -> dict[str, type[Component]]:
    """The class of each component. Raises: UserError for an encoder or a method that there is not."""
    OPTIMISERS[str(values.get("optimiser", "adam"))]
    return {name: _chosen(name, values) if name in CHOICES else FIXED[name] for name in ORDER}


def _leaves(classes: Mapping[str, type[Component]]) -> dict[str, tuple[str, str]]:
    """Parameter -> its component and its field."""
    found: dict[str, tuple[str, str]] = {}
    for component, cls in classes.items():
        for leaf, field in cls.leaves(component).items():
            if leaf in found:
                raise UserError(
                    f"{cls.__name__} and {classes[found[leaf][0]].__name__} both have a parameter {leaf!r}."
                )
            found[leaf] = component, field
    return found


def _by_component(given: dict[str, Any]) -> dict[str, Any]:
    """Flat parameters -> components, checked. Raises: UserError."""
    preset = given.get("preset", "quick")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UserError(did_you_mean(preset, PRESETS, "preset"))
    classes = _classes(given)
    leaves = _leaves(classes)
    for name in given:
        if name not in leaves and name != "preset":
            raise UserError(_no_parameter(name, given, classes))
    values: dict[str, dict[str, Any]] = {component: {} for component in ORDER}
    chosen = [str(given.get(component, _usual(component))) for component in CHOICES]
    for name, value in {**preset_values(preset, chosen), **given}.items():
        if name != "preset":
            component, field = leaves[name]
            values[component][field] = value
    found: dict[str, Any] = {"preset": preset}
    for component, cls in classes.items():
        try:
            found[component] = cls(**values[component])
        except ValidationError as error:
            raise UserError(_explain(error, component, cls)) from None
    first, seeds = found["runtime"].seed, found["report"].n_seeds
    if first + seeds > 2**31:
        raise UserError(f"parameter n_seeds={seeds}: the last of the seeds from {first} on is not below {2**31}.")
    return found


def _no_parameter(name: str, given: Mapping[str, Any], classes: Mapping[str, type[Component]]) -> str:
    """Why that is no parameter here: it is another method's or encoder's, or it is called otherwise, or unknown."""
    for component, registry in CHOICES.items():
        owners = [choice for choice in registry if name in registry[choice].Parameters.leaves(component)]
        owners.sort(key=lambda choice: choice != _usual(component))  # the usual one first
        if owners:
            chosen = given.get(component, _usual(component))
            listed = " or ".join(filter(None, (", ".join(owners[:-1]), owners[-1])))
            return (
                f"parameter {name}={given[name]} belongs to {component} {listed}, and {chosen} was chosen. "
                f"Leave it out, or choose {component}={owners[0]}."
            )
    if name in RENAMED:
        return f"parameter {name!r} is called {RENAMED[name]!r}."
    return did_you_mean(name, [*_leaves(classes), "preset"], "parameter")


def _explain(error: ValidationError, component: str, cls: type[Component]) -> str:
    """The first problem of a pydantic error as one line: parameter, what is wrong, what is allowed."""
    first = error.errors()[0]
    said = first["msg"].removeprefix("Value error, ")
    field = str(first["loc"][0])
    name = component if field == cls.CHOICE else field
    if first["type"] == "literal_error":
        return did_you_mean(first["input"], get_args(cls.model_fields[field].annotation), name)
    if said.startswith("unknown "):
        return said
    return f"parameter {name}={first['input']!r}: {said[0].lower()}{said[1:]} ({cls.model_fields[field].description})."


def notebook_settings(namespace: dict[str, Any]) -> Settings:
    """The settings that a notebook's `parameters` cell asks for: pass it `globals()`. None means the preset's value.

    papermill only warns of a parameter that the notebook lacks; here a name that it injected and that is not a
    setting is an error. Raises: UserError.
    """
    known = parameters()
    given = {name: namespace[name] for name in known if namespace.get(name) is not None}
    given = {name: value for name, value in given.items() if not isinstance(value, ModuleType)}  # an import's name
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):  # papermill's first line of the cell that it injects
            lines = (line.partition(" = ") for line in cell.splitlines()[1:])
            given |= {name: namespace[name] for name, equals, _ in lines if equals and name not in known}
    return Settings(**given)
