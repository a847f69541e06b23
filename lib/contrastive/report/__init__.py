"""Notebooks -> executed -> HTML. Notebooks use what is exported here; the command line uses `runner`."""

from .provenance import describe_data, provenance
from .record import check, record

__all__ = ["check", "describe_data", "provenance", "record"]
