"""Everything that imports Ray: machines, processes, and the trials that run in them.

Ray reads its settings when it is imported, and its workers inherit theirs: they are made here, and
a UserError says here which of them Ray cannot read.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from afi_search.errors import UserError, last_line
from afi_search.files import has_secret

for _name, _value in {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_raylet_start_wait_time_s": "900",  # after it Ray ends this process, without a word of ours
    "RAY_prestart_worker_first_driver": "0",  # no signal would be answered until there are workers
}.items():
    os.environ.setdefault(_name, _value)


def cannot_read(settings: Sequence[str]) -> UserError:
    """Return what to say of settings of Ray, NAME=VALUE each."""
    return UserError(
        f"Ray cannot read its settings in the environment: {', '.join(settings)}; where it wants a "
        f"number, give one, or leave the setting out"
    )


def blamed(error: BaseException) -> list[str]:
    """Return the settings of Ray, which reads some only as it runs, that an error is about."""
    told = last_line(error)
    named = [one.partition("=") for one in _odd_settings()]
    return [f"{name}={value}" for name, _, value in named if name in told or repr(value) in told]


def _odd_settings() -> list[str]:
    """Return the settings of Ray in the environment that are no numbers and hold no secret."""
    settings = re.compile(r"(RAY|TUNE)_(?!AUTH_|ADDRESS|TMPDIR)\w+=(?!\d+$).*", re.DOTALL)
    told = [one for one in map("=".join, os.environ.items()) if not has_secret(one)]
    return [one for one in told if settings.fullmatch(one)]


def _require_settings() -> None:
    """Make sure that Ray's import does not end this process, as it does where it wants a number.

    Raises:
        UserError: a setting of Ray in the environment is none.
    """
    if not (odd := _odd_settings()):
        return
    tried = subprocess.run([sys.executable, "-Pc", "import ray.tune"], capture_output=True)
    if tried.returncode < 0 or b"ValueError" in tried.stderr:
        raise cannot_read(odd)


if "ray" not in sys.modules:
    _require_settings()
