"""How fast contrastive pretraining is here, measured beside other libraries in one run: `make bench`."""


class PartError(RuntimeError):
    """A part of the benchmark that failed, with what it said."""
