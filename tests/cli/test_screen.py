"""What a terminal shows, rows and columns as a person sees them, on a pseudo terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from contextlib import AbstractContextManager, nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from afi_search.cli.common import PlainConsole, console
from afi_search.cli.screen import Screen
from afi_search.study.study import Study
from tests.search.studies import conductor_for, space_file

pyte = pytest.importorskip("pyte", reason="needs the extra dev")


class Interrupted(StringIO):
    """A file to which a text is written whole, and Ctrl-C comes before the writer knows."""

    def write(self, text: str) -> int:
        super().write(text)
        if text == "told\n":
            raise KeyboardInterrupt
        return len(text)


@pytest.mark.parametrize("nested", [False, True])
def test_what_was_written_when_ctrl_c_came_is_not_written_again(nested: bool) -> None:
    console = PlainConsole()
    console.file = Interrupted()
    with pytest.raises(KeyboardInterrupt), console if nested else nullcontext():
        console.say("told")
    console.say("and more")

    assert console.file.getvalue() == "told\nand more\n"


RUN = """
import os, signal, sys, time
from pathlib import Path
from afi_search.cli import in_words
from afi_search.cli.common import console
from afi_search.cli.screen import Screen
from afi_search.study.study import Study
from tests.search.studies import conductor_for, play, space_file

folder = Path(sys.argv[1])
with in_words():
    screen = Screen()
    ledger, conductor = conductor_for(space_file(), folder, on_change=screen.trial_changed)
    screen.study_opened(Study.open(folder))
    try:
        play(conductor)
        time.sleep(1)
        print("READY", file=sys.stderr)
        time.sleep(60)
    finally:
        time.sleep(1)
        screen.run_ended()
        console.say("The front.")
"""


def seen(screen: Any) -> list[str]:
    """Return the lines of a terminal, those above that have scrolled away among them."""
    above = ["".join(line[x].data for x in range(screen.columns)) for line in screen.history.top]
    return [line.rstrip() for line in (*above, *screen.display) if line.strip()]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [pytest.param(40, 100, marks=pytest.mark.slow), (40, 120), (8, 60)],
)
def test_ctrl_c_is_answered_and_no_row_of_the_table_stays(
    tmp_path: Path, rows: int, columns: int
) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
        os.execve(sys.executable, [sys.executable, "-c", RUN, str(tmp_path / "study")], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.HistoryScreen(columns, rows, history=1000)
    stream = pyte.ByteStream(screen)
    interrupted, answered = False, False
    while True:
        try:
            content = os.read(terminal, 65536)
        except OSError:  # all who could write have ended
            break
        stream.feed(content)
        shown = "\n".join(seen(screen))
        told = all(words in shown for words in ("READY", "of 20 trials", "resnet20"))
        if told and not interrupted:
            os.write(terminal, b"\x03")
            interrupted = True
        answered |= interrupted and "Stopping" in shown
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert answered
    shown = "\n".join(seen(screen))
    assert "The front." in shown
    assert seen(screen)[-1].startswith("Interrupted. Nothing is lost")
    assert shown.count("Stopping:") == 1  # it stands there while Ray ends, and is told once
    assert not re.search(r"architecture|of 20 trials|resnet20", shown.replace("\n", " "))
    assert not screen.cursor.hidden


@pytest.mark.parametrize("ends", [nullcontext(), pytest.raises(KeyboardInterrupt)])
def test_what_is_at_work_stands_there_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, ends: AbstractContextManager[object]
) -> None:
    written = StringIO()
    monkeypatch.setattr(console, "_file", written)
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "is_interactive", True)
    monkeypatch.setenv("TERM", "xterm")
    shown = pyte.Screen(80, 8)
    stream = pyte.Stream(shown)
    with ends, Screen() as screen:
        screen.at_work("Looking at the images: 1,000 of 3,000")
        for _ in range(1000):
            if "1,000 of 3,000" in written.getvalue():
                break
            time.sleep(0.01)
        stream.feed(written.getvalue().replace("\n", "\r\n"))
        assert any("1,000 of 3,000" in line for line in shown.display)
        assert shown.cursor.hidden
        if not isinstance(ends, nullcontext):
            raise KeyboardInterrupt
    shown.reset()
    stream.feed(written.getvalue().replace("\n", "\r\n"))
    assert not any("images" in line for line in shown.display)
    assert not shown.cursor.hidden


def test_why_a_worker_died_is_told_until_its_trial_is_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen()
    _, conductor = conductor_for(space_file(), tmp_path, on_change=screen.trial_changed)
    screen.study_opened(Study.open(tmp_path))
    assignment = conductor.next()
    assert assignment is not None
    conductor.lose_worker(assignment.number, "PermissionError: /data")
    assert "running: its worker died: PermissionError: /data  |" in capsys.readouterr().out
    conductor.report(assignment.number, [0.5], 1.0)
    assert "died" not in capsys.readouterr().out
