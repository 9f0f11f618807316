"""What a space file asks for by name, and where a user's module adds to it.

Each kind (backbone, data set, add-on attention, objective, sampler, pruner) has one registry. What
comes with the package is imported when it is first asked for, so that its names cost nothing. What
others register is known as soon as their module, named under `imports:`, has been imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from afi_search.errors import UserError, did_you_mean

T = TypeVar("T")


class ImportsError(UserError, ValueError):
    """A module that registers something cannot be imported."""


class UnknownName(UserError, ValueError):
    """Nothing of that kind is registered under the name."""


class Registry(Generic[T]):
    """The entries of one kind, by name; `modules` register theirs when they are imported.

    >>> planets = Registry[int]("planet")
    >>> planets.register("mars", 4)
    4
    >>> planets.get("mras")
    Traceback (most recent call last):
    afi_search.registry.UnknownName: unknown planet 'mras'. Did you mean 'mars'? There are: mars
    """

    def __init__(self, kind: str, modules: Mapping[str, Sequence[str]] | None = None) -> None:
        self._kind = kind
        self._modules = {name: module for module, of in (modules or {}).items() for name in of}
        self._entries: dict[str, T] = {}

    @property
    def names(self) -> list[str]:
        """All names: the package's own, then the others in order of registration."""
        return list(dict.fromkeys((*self._modules, *self._entries)))

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._modules

    def register(self, name: str, entry: T) -> T:
        """Make an entry known by its name; return it. A ValueError: the name is another entry's."""
        if name in self._modules:
            import_module(self._modules[name])
        if self._entries.setdefault(name, entry) != entry:
            raise ValueError(f"{self._kind} {name!r}: another one of that name is registered")
        return entry

    def check(self, name: str) -> str:
        """Return the name of an entry, without importing it; UnknownName lists those there are."""
        if name not in self:
            hint = did_you_mean(name, self.names)
            raise UnknownName(
                f"unknown {self._kind} {name[:60]!r}.{hint} There are: {', '.join(self.names)}"
            )
        return name

    def get(self, name: str) -> T:
        """Return the entry of that name; raises as `check` does."""
        if self.check(name) not in self._entries:
            import_module(self._modules[name])
        return self._entries[name]


def import_modules(names: Iterable[str], folder: str | Path | None = None) -> None:
    """Import the modules that register what a space file names.

    They, and what they import, are looked for in the folder first. An ImportsError says that one
    cannot be imported, or that another module of its name has been.
    """
    above = [str(folder)] if folder else []
    invalidate_caches()  # for a module that was written a moment ago
    sys.path[:0] = above
    try:
        for name in names:
            _require_from(folder, _imported(name, folder))
    finally:
        for path in above:
            sys.path.remove(path)


def _imported(name: str, folder: str | Path | None) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        where = f"in {folder}" if folder else "in a folder of PYTHONPATH"
        raise ImportsError(
            f"{name!r} cannot be imported ({type(error).__name__}: {error}); it must lie {where}, "
            f"or be installed, on every machine that trains"
        ) from error


def _require_from(folder: str | Path | None, module: ModuleType) -> None:
    """Make sure that a module which lies in the folder is not another of the same name."""
    file = getattr(module, "__file__", None)
    if folder is None or not file:
        return
    wanted = Path(folder, *module.__name__.split("."))
    files = [f for f in (wanted.with_suffix(".py"), wanted / "__init__.py") if f.is_file()]
    if files and not any(each.samefile(file) for each in files):
        raise ImportsError(
            f"{module.__name__!r} is to be imported from {folder}, and another module of that name "
            f"has been, from {file}; rename one of them"
        )


def lazy_exports(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a `__getattr__` (PEP 562) by which a package's names are imported when asked for.

    `modules` has the names of each module below the package.
    """
    module_of = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    return get


DATASETS = Registry[Any](
    "data set",
    {"afi_search.data.cifar": ("cifar10", "cifar100"), "afi_search.data.digits": ("digits",)},
)
_SAMPLERS = ("known-cost", "tpe", "tpe-multivariate", "nsga2", "gp", "random", "grid")
SAMPLERS = Registry[Any]("sampler", {"afi_search.search.samplers": _SAMPLERS})
PRUNERS = Registry[Any](
    "pruner", {"afi_search.search.pruners": ("none", "mo-asha", "asha", "hyperband", "median")}
)
