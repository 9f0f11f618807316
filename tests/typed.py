"""What a test knows of a type and the type checker does not."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


def there(value: T | None) -> T:
    """Return a value that must be there."""
    assert value is not None
    return value


def part(model: nn.Module, name: str, kind: type[M]) -> M:
    """Return the part of a network with that name, which must be of that kind."""
    found = model.get_submodule(name)
    assert isinstance(found, kind), f"{name} is {type(found).__name__}"
    return found
