"""The add-on attentions of R, by name: timm's layers, with its reduction ratio of 16, or a user's.

SE: Hu et al. 2018. GE: Hu et al. 2018, the parameter-free form with global extent (GE-theta-minus);
timm's other forms coincide with SE or cannot be built with timm 1.0. CBAM: Woo et al. 2018.
ECA: Wang et al. 2020.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from afi_search.errors import UserError
from afi_search.registry import Registry

_NAME = re.compile(r"(?!r[0-9]+$|off$|none$|shared$)[a-z][a-z0-9]*")


@dataclass(frozen=True)
class Attention:
    """An attention that can be added on R, the feature that AFI integrates.

    Attributes:
        name: as it stands in architecture texts, between hyphens: lower-case letters and digits.
        make: `make(channels)` returns a torch module, B x channels x H x W to the same; or where
            that function is, as "module:function", to be imported when it is first needed.
        least_channels: fewer make no sense to it.

    Raises:
        ValueError: the name cannot stand in an architecture's text.

    >>> Attention("gate", make="torch.nn:Identity").layer(16)
    Identity()
    """

    name: str
    make: Callable[[int], Any] | str
    least_channels: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} cannot name an attention: write lower-case letters and digits, and "
                f"neither off, none, shared nor a ratio like r4"
            )

    def layer(self, channels: int) -> Any:
        """Return a new torch module for that many channels; too few are a UserError."""
        if channels < self.least_channels:
            every = map(ATTENTIONS.get, ATTENTIONS.names)
            fitting = [other.name for other in every if channels >= other.least_channels]
            raise UserError(
                f"attention {self.name!r} needs at least {self.least_channels} channels and is "
                f"asked to work on {channels}; use width 'B', or one of: none, {', '.join(fitting)}"
            )
        make = resolve_name(self.make) if isinstance(self.make, str) else self.make
        return make(channels)


ATTENTIONS = Registry[Attention]("add-on attention")


def register_attention(attention: Attention) -> Attention:
    """Make an add-on attention known by its name; return it.

    A whole module is docs/examples/gate.py, beside a space file that has `imports: [gate]` and
    `attention: [none, gate]`:

    ```python
    afi_search.register_attention(afi_search.Attention("gate", Gate))
    ```

    Raises:
        ValueError: another attention has that name.

    >>> register_attention(Attention("same", "torch.nn:Identity")).layer(16)
    Identity()
    >>> register_attention(Attention("se", "torch.nn:Identity"))
    Traceback (most recent call last):
    ValueError: add-on attention 'se': another one of that name is registered
    """
    return ATTENTIONS.register(attention.name, attention)


def _gather_excite(channels: int) -> Any:
    from timm.layers.gather_excite import GatherExcite

    return GatherExcite(channels, use_mlp=False)


# SE never squeezes to less than 8 units, CBAM's channel gate needs as many to be a bottleneck, and
# ECA convolves 3 neighbouring channels.
register_attention(Attention("se", "timm.layers.squeeze_excite:SqueezeExcite", 8))
register_attention(Attention("ge", _gather_excite))
register_attention(Attention("cbam", "timm.layers.cbam:CbamModule", 8))
register_attention(Attention("eca", "timm.layers.eca:EcaModule", 3))
