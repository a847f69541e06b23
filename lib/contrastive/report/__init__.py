"""Notebooks -> executed -> HTML. Notebooks use what is exported here; the command line uses `runner`."""

from .explorer import explore
from .grid_section import findings_table, grid_answer, grid_metrics, run_grids, show_grid
from .provenance import describe_data, provenance
from .record import check, conclude, record

__all__ = [
    "check",
    "conclude",
    "describe_data",
    "explore",
    "findings_table",
    "grid_answer",
    "grid_metrics",
    "provenance",
    "record",
    "run_grids",
    "show_grid",
]
