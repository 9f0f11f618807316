"""Whatever stands under a key of a space file: it is taken, or refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from afi_search.space import Space, SpaceFileError
from afi_search.space.loading import SpaceDocument
from afi_search.space.recipe import Recipe
from afi_search.space.schema import (
    Confirm,
    Constraints,
    Data,
    Promote,
    Pruner,
    Search,
    SpaceFile,
    StageAxes,
    SupernetTraining,
    Target,
)

SECTIONS: dict[str, type[BaseModel]] = {
    "": SpaceFile,
    "stages: {all: {width: [off, B], ": StageAxes,
    "data: {": Data,
    "constraints: {": Constraints,
    "target: {": Target,
    "recipe: {": Recipe,
    "search: {": Search,
    "search: {pruner: {name: mo-asha, ": Pruner,
    "search: {supernet: {": SupernetTraining,
    "confirm: {": Confirm,
    "confirm: {recipe: {": Recipe,
    "promote: {": Promote,
    "presets: {p: {data: {": Data,
    "presets: {p: {recipe: {": Recipe,
    "presets: {p: {search: {": Search,
    "presets: {p: {confirm: {": Confirm,
}
ODD = [
    *("true", "0", "-1", "1.5", "1e400", ".inf", ".nan", "~", "", "''", '"1"', "1_000", "0x10"),
    *("2024-13-45", "2024-01-01", "12:30:45", "[]", "{}", "[[]]", "[true]", "{1: 2}", "{true: 1}"),
    *("{[1]: 2}", "*x", "!!bool x", "!!int x", "!!null x", "!!binary aGk=", "!!set {a}", "!foo x"),
    *("!!python/object:os.system x", '"\\0"', '"\\x1b[31m"', '"\\ud800"', "'../x'", "1/0", "nan"),
    *("{<<: {a: 1}}", "{<<: [1]}", "80X", "-80M", "999999999999999999G", "18446744073709551616"),
    *("[sys]", "[1, 1]", "[~]", "[.nan]", "1000000000", "resnet20(base-r0)", "[resnet20(]"),
    *("9" * 5000, "0x" + "f" * 5000, "x" * 5000),
]


def lines() -> Iterator[tuple[str, str]]:
    keys = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
    for position, (section, key) in enumerate(keys):
        for value in ODD[position % 4 :: 4]:  # each of them under every fourth key
            closed = "".join("}" for bracket in section if bracket == "{")
            yield f"{section}{key}: {value}{closed}", section.partition(":")[0] or key


def test_whatever_stands_under_a_key_is_taken_or_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    refused = 0
    for line, key in lines():
        rest = {"backbone": "resnet20", "stages": "{all: {width: [off, B], ratio: [4]}}"}
        others = (f"{name}: {value}\n" for name, value in rest.items() if name != key)
        path.write_text(f"# a space\n{line}\n{''.join(others)}")
        try:
            document = SpaceDocument.read(path)
            for preset in (None, *document.presets):
                assert Space(document.resolve(preset)).size > 0
        except SpaceFileError as error:
            refused += 1
            for told in str(error).splitlines():
                assert re.match(rf"{re.escape(str(path))}:\d+: ", told), (line, told)
                assert len(told) < 2000
        except Exception as error:
            pytest.fail(f"{line}: {error!r}")
    assert refused > 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "data: {name: digits, train_subset: 1151}",
            "data.train_subset: 1,151 must be at most 1,150",
        ),
        (
            "data: {name: digits, validation_subset: 288}",
            "validation_subset: 288 must be at most 287",
        ),
        ("data: {name: digits, validation: 1437}", "data.validation: 1,437 must be less than"),
        (
            "data: {name: digits}\nrecipe: {batch_size: 1151}",
            "recipe.batch_size: 1,151 must be at most 1,150",
        ),
        (
            "data: {name: digits}\nconfirm: {train_subset: 1151}",
            "confirm.train_subset: 1,151 must be at most 1,150",
        ),
        (
            "confirm: {train_subset: 100, recipe: {batch_size: 128}}",
            "confirm.train_subset: must be at least confirm.recipe.batch_size, 128",
        ),
        (
            "data: {name: digits}\npresets: {p: {data: {train_subset: 9999}}}",
            "presets.p.data.train_subset: 9,999 must be at most 1,150",
        ),
    ],
)
def test_more_images_than_there_are_is_told_before_anything_starts(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"backbone: resnet20\nstages: {{all: {{width: [off]}}}}\n{text}\n")
    with pytest.raises(SpaceFileError) as error:
        SpaceDocument.read(path)
    assert said in str(error.value)
