"""Every command ends in words: after a mistake, where the machine refuses, at Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afi_search.cli import GOES_ON, in_words
from afi_search.errors import UserError
from tests.driver import SPACE
from tests.search.studies import conductor_costs, conductor_for, play, space_file

PROGRAM = (sys.executable, "-m", "afi_search")
NOBODY = ("unshare", "--user", "--map-user=54321")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file, folder = space_file(), tmp_path / "a study [v1] :smile:"
    _, conductor = conductor_for(file, folder)
    play(conductor)
    conductor_costs(file).table.write(folder)  # or they are counted again, with PyTorch
    return folder


def call(
    *arguments: object, prefix: tuple[str, ...] = (), **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the program with some variables set, or unset where they are None."""
    changed = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"} | environment
    return subprocess.run(
        [*prefix, *PROGRAM, *map(str, arguments)],
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        errors="surrogateescape",
        text=True,
        timeout=250,
    )


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (UserError("a.yaml:2: key: 3 is too small"), "error: a.yaml:2: key: 3 is too small", 2),
        (PermissionError(13, "Permission denied", "/a/b"), "error: /a/b: Permission denied", 2),
        (OSError("no usable folder"), "error: no usable folder", 2),
        (FileNotFoundError(2, "No such file", b"/caf\xe9"), "error: /caf\\xe9: No such file", 2),
        (RuntimeError("Symlink loop from '/a'"), "error: Symlink loop from '/a'", 2),
        (MemoryError(), "error: there is not enough memory", 2),
        (
            RuntimeError("can't start new thread"),
            "error: this user or container may start no more threads (`ulimit -u`)",
            2,
        ),
        (RuntimeError("x: can't allocate memory: y"), "error: there is not enough memory", 2),
        (ImportError("x.so: failed to map segment from y"), "error: there is not enough memory", 2),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "error: operator torchvision::nms does not exist; torch and torchvision do not belong "
            "together: install both anew, in one command",
            2,
        ),
        (KeyboardInterrupt(), "Interrupted. Nothing is lost; the same command resumes it.", 130),
    ],
)
def test_what_a_person_or_the_machine_causes_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, words: str, code: int
) -> None:
    with pytest.raises(SystemExit) as end, in_words():
        raise error

    assert end.value.code == code
    assert capsys.readouterr().err == words + "\n"


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), in_words():
        _ = 1 / 0


def test_what_an_interrupted_import_makes_of_ctrl_c_is_an_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("cannot import name 'x'") from None

    with pytest.raises(SystemExit) as end, in_words():
        interrupted()

    assert end.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("module", ["typer", "rich.console", "afi_search.cli.common", "pandas"])
def test_ctrl_c_during_imports_is_answered_in_words(study: Path, module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "afi_search", "front", str(study)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(rf"\| +{module}$", line):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()

    assert process.wait(60) == 130
    told = [line for line in rest.splitlines() if line and not line.startswith("import time:")]
    assert told[-1] == "Interrupted. Nothing is lost; the same command resumes it."
    assert "Traceback" not in rest


def test_a_front_that_cannot_be_written_is_shown_all_the_same(study: Path) -> None:
    (study / "front.csv").mkdir()
    done = call("front", study)

    assert done.returncode == 2
    assert "Front of" in done.stdout
    assert done.stderr == f"error: {study}/front.csv: Is a directory\n"


SETTINGS = [
    *(("RAY_raylet_start_wait_time_s", value) for value in ("abc", "", "120 s")),
    ("RAY_NUM_REDIS_GET_RETRIES", "many"),
    ("TUNE_WARN_THRESHOLD_S", "soon"),
]
READ_AT_RUN = [
    ("TUNE_FORCE_TRIAL_CLEANUP_S", "1.5"),
    ("TUNE_DISABLE_STRICT_METRIC_CHECKING", "abc"),
    ("TUNE_RESULT_DIR", "/tmp/results"),
]


@pytest.mark.parametrize(
    ("command", "setting", "value"),
    [
        *(("run", *setting) for setting in (SETTINGS[0], *READ_AT_RUN)),
        *(("inspect", *setting) for setting in SETTINGS),
    ],
)
def test_a_setting_at_which_ray_would_die_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, setting: str, value: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    monkeypatch.setenv(setting, value)
    done = call(command, tmp_path / "tiny.yaml")

    assert done.returncode == 2
    assert re.fullmatch(f"error: Ray cannot .*{setting}={value};.*\n", done.stderr)


def test_the_api_tells_it_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "abc")
    asks = (
        "import afi_search as afi\ntry: afi.run_study('tiny.yaml')\nexcept afi.UserError: exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.returncode == 7


def test_a_setting_of_ray_is_nothing_to_a_command_without_it(study: Path) -> None:
    done = call("front", study, RAY_raylet_start_wait_time_s="abc")

    assert done.returncode == 0, done.stderr


def test_a_full_disk_behind_the_output_is_told(study: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "front", str(study)], stdout=full, stderr=subprocess.PIPE, text=True
        )

    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_nobody_reads_the_output_any_more(study: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "front", str(study)], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)

    assert done.returncode > 0
    assert done.stderr == ""


def test_who_cannot_be_asked_deletes_nothing(study: Path) -> None:
    done = call("study", "rm", study, prefix=("bash", "-c", '"$@" <&-', "bash"))

    assert done.returncode > 0
    assert done.stderr.strip() == "Aborted."
    assert (study / "study.yaml").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_nowhere(study: Path, closed: str) -> None:
    done = call("front", study, prefix=("bash", "-c", f'"$@" {closed}', "bash"))

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (study / "front.csv").read_text().startswith("number,architecture,")


def test_a_terminal_that_says_it_has_no_columns_is_printed_to(study: Path) -> None:
    assert "Front of" in call("front", study, COLUMNS="0").stdout


def test_pictures_are_drawn_whatever_screen_is_asked_for(study: Path) -> None:
    done = call("front", study, MPLBACKEND="no-such-backend")

    assert done.returncode == 0, done.stderr
    assert (study / "front.png").stat().st_size > 0


def test_long_values_are_shortened_where_they_are_told() -> None:
    told = call("front", 60_000 * "x").stderr

    assert told.startswith("error: xxx")
    assert len(told) < 1100


@pytest.mark.parametrize(
    "encoding",
    ["ascii", *(pytest.param(each, marks=pytest.mark.slow) for each in ("latin-1", "cp1252"))],
)
def test_a_terminal_without_utf8_shows_substitutes(study: Path, encoding: str) -> None:
    done = call("front", study, PYTHONIOENCODING=encoding)

    assert done.returncode == 0, done.stderr
    assert "resnet20" in done.stdout


def test_paths_are_text(study: Path) -> None:
    done = call("front", study)

    assert f"  {study}/front.csv\n" in done.stdout
    failed = call("front", f"{study}/\x1b[31m[bold]nothing[/]")
    assert f"error: {study}/\\x1b[31m[bold]nothing[/]: is not a study's folder" in failed.stderr


needs_nobody = pytest.mark.skipif(
    shutil.which(NOBODY[0]) is None
    or subprocess.run([*NOBODY, "true"], capture_output=True).returncode != 0,
    reason="needs the right to become an unknown user",
)


@needs_nobody
@pytest.mark.parametrize("command", ["--help", "run --help", "inspect digits", "front STUDY"])
def test_without_a_home_and_a_known_user_it_works(study: Path, command: str) -> None:
    words = [str(study) if word == "STUDY" else word for word in command.split()]
    done = call(*words, prefix=NOBODY, HOME=None, USER=None, LOGNAME=None)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@needs_nobody
def test_without_a_home_a_run_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    where = ("run", tmp_path / "tiny.yaml", "--studies", tmp_path)
    done = call(*where, prefix=NOBODY, HOME=None, USER=None, LOGNAME=None)

    assert done.returncode == 2
    assert "error: there is no home folder; name one that can be written in HOME" in done.stderr
    assert "Traceback" not in done.stderr


@needs_nobody
def test_a_ledger_that_may_not_be_read_is_not_called_damaged(study: Path) -> None:
    (study / "ledger.log").chmod(0)
    done = call("front", study, prefix=NOBODY)

    assert done.returncode == 2
    assert "Permission denied" in done.stderr
    assert "repair" not in done.stderr


SLOW_TO_TELL = """
import time
from afi_search.cli import in_words, told_to_stop

with in_words(), told_to_stop(lambda: time.sleep(1)):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(2)
        raise
"""


def test_a_program_that_tells_it_twice_is_answered_once_however_long_the_answer_takes() -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_TELL], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.readline()
    for _ in range(2):  # as `timeout` and batch systems do: to the process, and to its group
        running.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said.split(b".")[0]) == (130, b"Interrupted")


SLOW_TO_STOP = """
import time
from afi_search.cli import in_words

with in_words():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)
"""


def test_a_second_ctrl_c_stops_at_once_as_soon_as_that_is_told() -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_STOP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    assert any("Ctrl-C again stops at once." in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, "Stopped at once. The same command resumes it.\n")


DROPPED = """
import os, signal, time
from afi_search.cli import in_words

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

with in_words():
    callback = Callback()
    del callback
    time.sleep(60)
"""


def test_a_ctrl_c_that_python_drops_ends_the_program_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"Interrupted. {GOES_ON}\n"
