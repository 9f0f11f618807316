"""Random architectures and stage axes for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from afi_search.space import ATTENTIONS, BACKBONES, Architecture, StageChoice, get_backbone
from afi_search.space.architecture import SCORERS, WIDTHS
from afi_search.space.schema import StageAxes

choices = st.none() | st.builds(
    StageChoice,
    width=st.sampled_from(WIDTHS),
    ratio=st.integers(1, 64),
    attention=st.none() | st.sampled_from(ATTENTIONS.names),
    scorer=st.sampled_from(SCORERS),
)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any architecture of any registered backbone."""
    backbone = draw(st.sampled_from(BACKBONES.names))
    count = len(get_backbone(backbone).stages)
    return Architecture(backbone, tuple(draw(choices) for _ in range(count)))


def _some(options: tuple[object, ...]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(options), min_size=1, unique=True).map(tuple)


stage_axes = st.builds(
    StageAxes, choice=_some(("off", "base-r4", "base-r8-eca", "B-r16", "B-r32", "B-r2-se-shared"))
) | st.builds(
    StageAxes,
    width=_some(("off", *WIDTHS)),
    ratio=_some((2, 3, 4, 8, 16, 32)),
    attention=_some(("none", "se", "eca")),
    scorer=_some(SCORERS),
)
