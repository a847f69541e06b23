"""Notebooks -> executed -> HTML. Notebooks use what is exported here; the command line uses `runner`."""

from ..evaluation import check
from . import (
    advice,
    data_section,
    label_lists,
    map_section,
    method_answer,
    method_section,
    plots,
    pretraining,
    protocol,
    result_plots,
    tables,
)
from .explorer import explore
from .grid_section import findings_table, grid_answer, grid_checks, grid_facts, grid_metrics, run_grids, show_grids
from .origins import describe_data, provenance
from .recording import conclude, record
