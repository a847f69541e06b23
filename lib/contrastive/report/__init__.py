"""Notebooks -> executed -> HTML. Notebooks use what is exported here; the command line uses `runner`."""

from ..evaluation import check
from . import plots, pretraining, tables
from .explorer import explore
from .grid_section import findings_table, grid_answer, grid_checks, grid_metrics, run_grids, show_grids
from .provenance import describe_data, provenance
from .record import conclude, record

__all__ = [
    "check",
    "conclude",
    "describe_data",
    "explore",
    "findings_table",
    "grid_answer",
    "grid_checks",
    "grid_metrics",
    "plots",
    "pretraining",
    "provenance",
    "record",
    "run_grids",
    "show_grids",
    "tables",
]
