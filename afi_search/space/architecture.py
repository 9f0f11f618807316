"""Architecture: a backbone and one AFI choice per stage, with one canonical text.

resnet32(base-r4, off, B-r16-se)
resnet110(B-r16)                     one choice for all stages
resnet50                             the plain backbone
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from afi_search.errors import UserError, did_you_mean
from afi_search.space.attention import ATTENTIONS
from afi_search.space.backbone import StageShape, get_backbone

WIDTHS = ("base", "B")
SCORERS = ("block", "stage")
OFF = "off"
_SHARED = "shared"


class ArchitectureError(UserError, ValueError):
    """A text or a choice that names no architecture."""


@dataclass(frozen=True)
class StageChoice:
    """How AFI is built into one stage.

    Attributes:
        width: `base` (first convolution gives C/2 channels, AFI the other half) or `B` (first
            convolution unchanged, AFI adds C channels).
        ratio: r, the scorer's hidden layer has C' // r units.
        attention: add-on attention applied to R, or None.
        scorer: `block`, an AFI module a block (the paper), or `stage`, one scorer for the stage.

    >>> print(StageChoice("B", 16, attention="se"))
    B-r16-se

    Raises:
        ArchitectureError: a value is none of these.
    """

    width: str
    ratio: int
    attention: str | None = None
    scorer: str = "block"

    def __post_init__(self) -> None:
        for key, names in (
            ("width", WIDTHS),
            ("scorer", SCORERS),
            ("attention", ATTENTIONS.names if self.attention is not None else ()),
        ):
            if names and (value := getattr(self, key)) not in names:
                hint = did_you_mean(str(value), names)
                raise ArchitectureError(f"{key} {value!r} must be one of {', '.join(names)}.{hint}")
        if self.ratio < 1:
            raise ArchitectureError(f"ratio {self.ratio} must be a whole number from 1")

    def __str__(self) -> str:
        shared = _SHARED if self.scorer == "stage" else None
        return "-".join(filter(None, (self.width, f"r{self.ratio}", self.attention, shared)))

    @classmethod
    @lru_cache(maxsize=10_000)
    def parse(cls, text: str) -> StageChoice | None:
        """Read `off` (as None) or `WIDTH-rR[-ATTENTION][-shared]`.

        Raises:
            ArchitectureError: the text is neither; the message says which part is wrong.
        """
        if text == OFF:
            return None
        width, *rest = text.split("-")
        if width not in WIDTHS:
            raise ArchitectureError(
                f"{text!r}: {width!r} is not a width.{did_you_mean(width, (OFF, *WIDTHS))} A stage "
                f"is 'off' or WIDTH-rR[-ATTENTION][-shared], WIDTH one of {', '.join(WIDTHS)}"
            )
        if not rest or not re.fullmatch(r"r[1-9][0-9]{0,8}", rest[0]):
            found = repr(rest[0]) if rest else "nothing"
            raise ArchitectureError(
                f"{text!r}: {found} stands where the ratio is wanted, like '{width}-r4'"
            )
        shared = rest[-1] == _SHARED
        named = rest[1 : len(rest) - shared]
        if len(named) > 1:
            raise ArchitectureError(f"{text!r}: {'-'.join(named[1:])!r} is too much")
        attention = named[0] if named else None
        if attention is not None and attention not in ATTENTIONS:
            options = [*ATTENTIONS.names, _SHARED]
            raise ArchitectureError(
                f"{text!r}: {attention!r} is no add-on attention."
                f"{did_you_mean(attention, options)} There are: {', '.join(options)}"
            )
        return cls(width, int(rest[0][1:]), attention, "stage" if shared else "block")


def choice_text(choice: StageChoice | None) -> str:
    """Return the text of a choice, None's being `off`."""
    return OFF if choice is None else str(choice)


def afi_channels(shape: StageShape, width: str) -> int:
    """Return C', the channels of the features that AFI integrates: C/2 in base, C in B."""
    return shape.channels // 2 if width == "base" else shape.channels


def hidden_units(channels: int, ratio: int) -> int:
    """Return the scorer's hidden units, C' // r, and never less than one."""
    return max(1, channels // ratio)


def canonical_ratio(channels: int, ratio: int) -> int:
    """Return the one ratio that stands for all that give the same hidden units.

    The power of two among them, or the largest of them that divides C' into that many.
    """
    hidden = hidden_units(channels, ratio)
    power = 1
    while hidden_units(channels, power) > hidden:
        power *= 2
    return power if hidden_units(channels, power) == hidden else channels // hidden


@lru_cache(maxsize=10_000)
def canonical_choice(choice: StageChoice | None, shape: StageShape) -> StageChoice | None:
    """Return the one spelling of a choice that stands for all that build the same stage.

    A stage of one block has no room for AFI, so it is always off. A stage of two has a single AFI
    module, whose scorer is shared with no one.
    """
    if choice is None or shape.blocks < 2:
        return None
    ratio = canonical_ratio(afi_channels(shape, choice.width), choice.ratio)
    scorer = "block" if shape.blocks == 2 else choice.scorer
    return StageChoice(choice.width, ratio, choice.attention, scorer)


@dataclass(frozen=True)
class Architecture:
    """A backbone with one choice a stage, None standing for `off`.

    Canonical: however it was spelled, the same network is the same architecture, with the same
    text, hash and id.

    >>> Architecture.parse("resnet32( base-r4,off,B-r16-se )").text
    'resnet32(base-r4, off, B-r16-se)'
    >>> Architecture.parse("resnet32(off)") == Architecture.plain("resnet32")
    True
    >>> Architecture.parse("resnet32(base-r4)").slug
    'resnet32_base-r4'
    >>> [str(each) for each in Architecture.baselines("resnet32")]
    ['resnet32', 'resnet32(base-r4)', 'resnet32(B-r16)']

    Raises:
        UnknownName: the backbone is not registered.
        ArchitectureError: the number of choices is not the backbone's number of stages.
    """

    backbone: str
    stages: tuple[StageChoice | None, ...]

    def __post_init__(self) -> None:
        shapes = get_backbone(self.backbone).stages
        if len(self.stages) != len(shapes):
            raise ArchitectureError(
                f"{self.backbone} has {len(shapes)} stages, and {len(self.stages)} choices are "
                f"given; give one a stage, or a single one for all"
            )
        stages = tuple(map(canonical_choice, self.stages, shapes))
        object.__setattr__(self, "stages", stages)

    @classmethod
    def uniform(cls, backbone: str, choice: StageChoice | None) -> Architecture:
        """Return the architecture with the same choice in every stage."""
        return cls(backbone, (choice,) * len(get_backbone(backbone).stages))

    @classmethod
    def plain(cls, backbone: str) -> Architecture:
        """Return the backbone without AFI."""
        return cls.uniform(backbone, None)

    @classmethod
    def baselines(cls, backbone: str) -> tuple[Architecture, ...]:
        """Return the plain backbone and the paper's placements.

        These have AFI in every stage, in each width with the family's own ratio.
        """
        ratios = get_backbone(backbone).ratios
        placements = (cls.uniform(backbone, StageChoice(w, ratios[w])) for w in WIDTHS)
        return cls.plain(backbone), *placements

    @classmethod
    def of(cls, architecture: Architecture | str) -> Architecture:
        """Return an architecture that is given as such or by its text; raises as `parse` does."""
        return cls.parse(architecture) if isinstance(architecture, str) else architecture

    @classmethod
    @lru_cache(maxsize=100_000)
    def parse(cls, text: str) -> Architecture:
        """Read an architecture's text; blanks do not matter.

        Raises:
            ArchitectureError: it is not of the form `backbone(choice, choice, ...)`.
            UnknownName: the backbone is not registered.
        """
        compact = re.sub(r"\s+", "", text)
        match = re.fullmatch(r"([^(),]+)(?:\(([^()]+)\))?", compact)
        if match is None:
            raise ArchitectureError(
                f"{text!r} is no architecture; write BACKBONE(CHOICE, CHOICE, ...), one choice a "
                f"stage, like 'resnet32(base-r4, off, B-r16-se)'"
            )
        backbone, inside = match.groups()
        get_backbone(backbone)
        if inside is None:
            return cls.plain(backbone)
        try:
            choices = tuple(map(StageChoice.parse, inside.split(",")))
            return cls(backbone, choices) if choices[1:] else cls.uniform(backbone, *choices)
        except ArchitectureError as error:
            raise ArchitectureError(f"{text!r}: {error}") from None

    @cached_property
    def text(self) -> str:
        """The canonical text; `parse` reads it back to an equal architecture."""
        choices = self.choice_texts
        if not any(self.stages):
            return self.backbone
        if self == Architecture.uniform(self.backbone, self.stages[0]):
            choices = choices[:1]
        return f"{self.backbone}({', '.join(choices)})"

    @property
    def choice_texts(self) -> list[str]:
        """The text of each stage's choice."""
        return list(map(choice_text, self.stages))

    @property
    def slug(self) -> str:
        """The text as a file name."""
        return re.sub(r"[^A-Za-z0-9-]+", "_", self.text).strip("_")

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that depend on the canonical text alone."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return self.text
