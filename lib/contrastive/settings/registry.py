"""Names that can be chosen (encoders, methods, optimisers), each brought by its own file, here or in a plug-in."""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import UserError, did_you_mean

Entry = TypeVar("Entry", bound=Any)
PLUGINS = "contrastive"  # the group of entry points through which other packages bring encoders and methods


class Registry(Generic[Entry]):
    """Name -> class, for one kind of choice. A class brings its parameters as `Parameters`, and registers itself:

    >>> @ENCODERS.register("tiny")
    ... class Tiny(Encoder): ...

    One that ends in `:NAME`, as in `timm:NAME`, stands for all names that start so.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that gives a class its name. Raises: ValueError when another class has it."""

        def keep(entry: Entry) -> Entry:
            if not hasattr(getattr(entry, "Parameters", None), "leaves") and isinstance(entry, type):
                raise ValueError(
                    f"{self.kind} {name!r}: Parameters has to be a class of settings, as the others have it"
                )
            known = self._entries.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__):
                raise ValueError(f"there is already {self.kind} {name!r}, {known.__module__}.{known.__qualname__}")
            self._entries[name] = entry
            return entry

        return keep

    def __getitem__(self, name: str) -> Entry:
        """The class of that name. Raises: UserError, with the nearest spelling."""
        load_plugins()
        family, colon, inner = name.partition(":")
        known = f"{family}:NAME" if colon and inner else name
        if known not in self._entries:
            raise UserError(did_you_mean(name, self._entries, self.kind))
        return self._entries[known]

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._entries)


ENCODERS: Registry[Any] = Registry("encoder")
METHODS: Registry[Any] = Registry("method")
OPTIMISERS: Registry[Any] = Registry("optimiser")
# Kind of text -> function that spells it out in full, or raises ValueError. The rooms that know bring them.
SPELLERS: dict[str, Callable[[str], str]] = {}


def plugins() -> dict[str, str]:
    """The packages that bring encoders and methods -> their versions."""
    found = (point.dist for point in entry_points(group=PLUGINS))
    return {dist.name: dist.version for dist in found if dist is not None}


@cache
def load_plugins() -> None:
    """Import what installed packages bring as entry points of the group PLUGINS; their import registers it.

    Raises: UserError when one cannot be imported.
    """
    for point in entry_points(group=PLUGINS):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's module raises
            raise UserError(
                f"the plug-in {point.name} ({point.value}) cannot be imported: {type(error).__name__}: {error}. "
                "Mend it, or remove its package."
            ) from None
