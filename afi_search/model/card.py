"""The model card (Mitchell et al. 2019, arXiv:1810.03993) as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from afi_search.study.info import MACS_CONVENTION, PAPER_FLOPS_CONVENTION, PARAMS_CONVENTION

CONVENTIONS = {
    "macs": f"MACs per image of {{stem}} x {{stem}}: {MACS_CONVENTION}",
    "params": f"parameters: {PARAMS_CONVENTION}",
    "paper_gflops": f"paper GFLOPs: {PAPER_FLOPS_CONVENTION}",
}
_MANY = 20


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the card of a model, given what model.json holds."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    prepared = facts["preprocessing"]
    resized = f"shorter side {prepared['resize']}, " if prepared["resize"] else ""
    yield f"# {facts['architecture']}"
    yield ""
    yield (
        f"An image classifier with {facts['num_classes']} classes, trained with afi_search: a CNN "
        f"with Attentive Feature Integration (AFI) where the architecture's text says so."
    )
    yield ""
    yield "```python"
    yield "import afi_search"
    yield 'model = afi_search.load("PATH/OF/THIS/FOLDER")'
    yield 'model.predict("photo.jpg")        # or: afi-search predict FOLDER photo.jpg'
    yield "```"
    yield ""
    yield "## Accuracy"
    yield from _table(
        {name: f"{100 * value:.2f} %" for name, value in facts["metrics"].items()}
        or {"accuracy": "not measured"}
    )
    yield "## Cost"
    yield from _table(
        {
            CONVENTIONS[name].format(stem=facts["stem"]): f"{value:,.2f}".removesuffix(".00")
            for name, value in facts["costs"].items()
        }
    )
    yield "## Input"
    yield (
        f"RGB, upright as EXIF says; {resized}centre crop {prepared['crop']} x "
        f"{prepared['crop']}; scaled to 0..1; minus {prepared['mean']}, divided by "
        f"{prepared['std']}. Batch norms: {facts['batch_norms']}."
    )
    yield ""
    yield f"Classes: {_some(facts['classes'])}."
    yield ""
    yield "## Training"
    yield from _table(dict(_flat(facts["training"])) or {"training": "unknown"})


def _table(rows: Mapping[str, Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in rows.items():
        yield f"| {name} | {_cell(value)} |"
    yield ""


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _some(names: list[str]) -> str:
    more = len(names) - _MANY
    shown = ", ".join(map(_cell, names[:_MANY]))
    return f"{shown} and {more} more (see model.json)" if more > 0 else shown
