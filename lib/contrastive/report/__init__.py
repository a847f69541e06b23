"""Notebooks -> executed -> HTML. Notebooks use what is exported here; the command line uses `runner`."""

from .explorer import explore
from .provenance import describe_data, provenance
from .record import check, conclude, record

__all__ = ["check", "conclude", "describe_data", "explore", "provenance", "record"]
