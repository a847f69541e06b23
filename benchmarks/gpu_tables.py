"""Tables of what `python -m benchmarks --scope gpu` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_text(row: Mapping[str, Any]) -> str:
    """A row's value with its unit."""
    value = row["value"]
    if value is None:
        return "does not fit into the memory"
    if isinstance(value, str):
        return value
    return f"{value:,.0f} {row['unit']}" if value >= 100 else f"{value:.3g} {row['unit']}"


def gpu_table(measured: Mapping[str, Any]) -> str:
    """Every figure in Markdown."""
    rows = [
        f"| {row['what']} | {value_text(row)} | {row['note']} |" for rows in measured["parts"].values() for row in rows
    ]
    return "\n".join(["| measured | value | |", "| :-- | --: | :-- |", *rows])


def gpu_conditions(measured: Mapping[str, Any]) -> str:
    """On what it was measured, and what is missing, in a few sentences."""
    said = [
        f"{measured['gpu']}, {measured['cores']} cores; PyTorch {measured['torch']}; commit {measured['commit']}; "
        f"precision {measured['precision']} here and float32 elsewhere unless tuned. Grey images: {measured['grey']}; "
        f"images in colour: {measured['colour']}; {measured['n_images']:,} of them, batches of "
        f"{measured['batch_size']}."
    ]
    if measured["missing"]:
        said.append(f"Not installed there, so left out: {', '.join(measured['missing'])}.")
    said += [f"Left out: {name} ({why})." for name, why in measured["left_out"].items()]
    return " ".join(said)


def gpu_section(measured: Mapping[str, Any] | None) -> str:
    """What the report says of GPUs, in Markdown."""
    if measured is None:
        return "Not measured. On a machine with one: `python -m benchmarks --scope gpu`."
    return f"{gpu_conditions(measured)}\n\n{gpu_table(measured)}"
