"""Tables of parameters, presets and augmentation policies, as the code has them."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from contrastive.augment import OPERATIONS, POLICIES, spell_policy
from contrastive.settings import PRESETS, Component, EncoderSettings, MethodSettings
from contrastive.settings.model import CHOICES, FIXED, ORDER

from .markdown import table

PACKAGE = "contrastive."  # plug-ins that happen to be installed are not of this project
BASES: dict[str, type[Component]] = {"encoder": EncoderSettings, "method": MethodSettings}
SUITS = {
    "simclr": "the recipe of the SimCLR paper, as written",
    "handwriting": "digits and letters: never mirrored, slightly turned and slanted, strokes of other widths",
    "natural": "small photographs: the recipe without its blur",
    "grey": "grey images such as X-rays: most of the picture stays in view",
    "none": "images as they are",
}


def parameters() -> str:
    """Every parameter, by component: fields, defaults and descriptions are those of the code."""
    parts = [_rows([("`preset`", "quick", f"the values that the others start from: {', '.join(PRESETS)}")])]
    for component in ORDER:
        classes = _classes(component)
        base = BASES.get(component) or classes[""]
        about = "" if component in BASES else " ".join((base.__doc__ or "").partition("\n\n")[0].split())
        names = ", ".join(f"`{name}`" for name in sorted(classes))
        parts += [f"### {component.capitalize()}", about or f"One of {names}.", _fields(base, component)]
        seen: list[type[Component]] = []
        for cls in (classes[name] for name in sorted(classes) if name):
            if cls in seen:
                continue
            seen.append(cls)
            own = _fields(cls, component, set(base.model_fields))
            named = " or ".join(f"`{component}={name}`" for name in sorted(classes) if classes[name] is cls)
            parts += [f"With {named}:", own] if own else [f"{named} has no others."]
    return "\n\n".join(parts)


def _classes(component: str) -> dict[str, type[Component]]:
    """The settings of each choice there is of a component; under "" where there is nothing to choose."""
    if component in FIXED:
        return {"": FIXED[component]}
    entries = {name: CHOICES[component][name] for name in CHOICES[component]}
    return {name: entry.Parameters for name, entry in entries.items() if entry.__module__.startswith(PACKAGE)}


def _fields(cls: type[Component], component: str, without: Any = ()) -> str:
    """The table of a component's parameters but those; empty if there are no others."""
    rows = []
    for leaf, field in cls.leaves(component).items():
        if field in without:
            continue
        info = cls.model_fields[field]
        what, kind = str(info.description), info.annotation
        allowed = [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else []
        if any(value not in what for value in allowed):
            what += f" ({', '.join(allowed)})"
        rows.append((f"`{leaf}`", _value(info.default), what))
    return _rows(rows) if rows else ""


def _rows(rows: list[tuple[str, str, str]]) -> str:
    return table(("parameter", "default", "what it does"), rows)


def _value(value: Any) -> str:
    """A parameter's value as it is written after -p; empty where it follows from the data."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def presets() -> str:
    """What each preset changes; else the default, but for encoders and methods, whose defaults differ."""
    usual = {
        leaf: cls.model_fields[field].default
        for component, cls in FIXED.items()
        for leaf, field in cls.leaves(component).items()
    }
    flat = {
        preset: {
            f"{name}, {of}" if of else name: value
            for of, part in {"": values, **{k: v for k, v in values.items() if isinstance(v, dict)}}.items()
            for name, value in part.items()
            if not isinstance(value, dict)
        }
        for preset, values in PRESETS.items()
    }
    names = dict.fromkeys(name for preset in flat.values() for name in preset)
    rows = [
        (
            "`" + name.replace(", ", "` of `") + "`",
            *(_value(preset.get(name, usual.get(name))) for preset in flat.values()),
        )
        for name in names
    ]
    return table(("parameter", *(f"`{name}`" for name in PRESETS)), rows)


def policies() -> str:
    """Named policies, and operations in the order of their application."""
    named = [
        (f"`{name}`", SUITS.get(name, ""), f"`{spell_policy(name)}`" if policy else "")
        for name, policy in POLICIES.items()
    ]
    operations = [
        (f"`{op}`", ", ".join(f"{what} ({usual:g})" for what, (*_, usual) in numbers.items()))
        for op, numbers in OPERATIONS.items()
    ]
    tables = (
        table(("policy", "for what", "what it stands for"), named),
        table(("operation", "its numbers (the usual ones)"), operations),
    )
    return "\n\n".join(tables)
