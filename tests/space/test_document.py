from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.space.document import Document


def told(text: str) -> str:
    with pytest.raises(UserError) as error:
        Document.parse(text, "a.yaml", UserError)
    return str(error.value)


def test_values_and_lines() -> None:
    document = Document.parse(
        "# one\nwidth: [off,\n  base]\nrecipe:\n  lr: 5e-4\n  nesterov: true\n", "a.yaml", UserError
    )
    assert document.data == {
        "width": ["off", "base"],
        "recipe": {"lr": 5e-4, "nesterov": True},
    }
    assert document.line(("width",)) == 2
    assert document.line(("width", 1)) == 3
    assert document.line(("recipe", "lr")) == 5
    assert document.line(("recipe", "absent", "deep")) == 4
    assert document.line(("absent",)) == 1


def test_aliases_and_merged_mappings() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: [*a, {y: 9, z: 3}]\n  x: 5\n"
    document = Document.parse(text, "a.yaml", UserError)
    assert document.data == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 5, "y": 2, "z": 3},
    }
    assert document.line(("c", "x")) == 5
    assert document.line(("c", "z")) == 4


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    for depth in range(1, 12):
        lines.append(f"l{depth}: &l{depth} [{', '.join([f'*l{depth - 1}'] * 10)}]")
    said = told("\n".join([*lines, "imports: *l11"]))
    assert said.endswith("the file has more than 20,000 values")


def test_a_file_is_read_no_further_than_to_more_values_than_any_needs() -> None:
    assert told("- a\n" * 60_000) == "a.yaml:40000: the file has more than 20,000 values"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'a: "\UFFFFFFFF"', "a.yaml: is not YAML: "),
        (r'a: "\U00110000"', "a.yaml: is not YAML: "),
        ("a: 1\nname: 2024-13-45", "a.yaml:2: name: '2024-13-45' is read as a timestamp; if it is"),
        ("a:\n  - 2024-12-13", "a.yaml:2: a.0: '2024-12-13' is read as a timestamp"),
        (
            f"seed: {'9' * 5000}",
            "a.yaml:1: seed: '9999999999999999999999999999999999999...' cannot",
        ),
        (f"seed: 0x{'f' * 100}", "is too large a number"),
        ("a: !!python/name:os.system x", "is read as a os.system"),
        ("a: !!int x", "a.yaml:1: a: 'x' cannot be read as a whole number"),
        ("a: &a [*a]", "nested too deeply"),
        ("[" * 1500, "a.yaml:1: is nested too deeply"),
        (f"a:\n  {'[' * 51}", "a.yaml:2: is nested too deeply"),
        ("a: 1\nb: 2\na: 3", "a.yaml:3: a: is not YAML: the key is there twice"),
        ("? [1]\n: 2", "a.yaml:1: a key must be a word or a number"),
        ("a: {<<: 3}", "a.yaml:1: a: only mappings can be merged with <<"),
        ("--- 1\n--- 2", "is not YAML"),
        ("a: *b", "a.yaml:1: is not YAML"),
        ("a: !!bool x", "a.yaml:1: a: 'x' cannot be read as true or false"),
        ('a:\n  b: "x\\0y"', "a.yaml:2: a.b: 'x\\x00y' has characters in it that are no text"),
        ('a: "\\ud800"', "has characters in it that are no text"),
        ('"\\udce9": 1', "a.yaml:1: a key must be a word or a number"),
        ("true: 1", "a.yaml:1: a key must be a word or a number"),
        ("a: {null: 1}", "a.yaml:1: a: a key must be a word or a number"),
        ("a: 1\nb: \x01", "a.yaml:2: is not YAML: holds a character that no YAML may have: #x0001"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    assert said in told(text)


def test_a_file_larger_than_any_space_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UserError, match="it has more than 1,000,000 bytes"):
        Document.read(path, UserError)
    with pytest.raises(UserError, match="/dev/zero: cannot be read"):
        Document.read("/dev/zero", UserError)


@pytest.mark.parametrize("content", [b"a: 1\nb: caf\xe9\n", b"a: 1\nb: \xff\xfe"])
def test_a_file_in_another_encoding_is_told_with_the_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"a.yaml:2: must be UTF-8, and is not"):
        Document.read(tmp_path / "a.yaml", UserError)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"a.yaml: cannot be read: it is a pipe"):
        Document.read(tmp_path / "a.yaml", UserError)


def test_an_anchor_may_be_used_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = Document.parse("a: &x 1\nb: &x 2\nc: *x", "a.yaml", UserError)
    assert document.data == {"a": 1, "b": 2, "c": 2}
