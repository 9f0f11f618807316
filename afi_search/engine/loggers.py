"""Other programs that log trials as they run, through Ray: TensorBoard, MLflow, W&B."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from ray import tune
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from afi_search.engine.ray_session import EngineError
from afi_search.errors import did_you_mean
from afi_search.study.study import Study

MakeLogger = Callable[[Study], tune.Callback]


def find_loggers(names: Sequence[str]) -> list[MakeLogger]:
    """Return what makes Tune's callbacks of those names in a study's folder, or an EngineError."""
    made = []
    for name in dict.fromkeys(names):
        if name not in _LOGGERS:
            raise EngineError(
                f"--logger {name}: there is no such logger.{did_you_mean(name, _LOGGERS)} There "
                f"are: {', '.join(_LOGGERS)}"
            )
        package, make = _LOGGERS[name]
        if find_spec(package) is None:
            raise EngineError(
                f"--logger {name}: is not installed: pip install 'afi-search[{name}]'"
            )
        made.append(make)
    return made


class _TensorBoard(TBXLoggerCallback):
    """Writes what TensorBoard reads into the study's folder, and not into Tune's."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._folder = study.folder / "tensorboard"

    def log_trial_start(self, trial: Any) -> None:
        self._trial_writer[trial] = self._summary_writer_cls(str(self._folder / str(trial)))
        self._trial_result[trial] = {}


def _mlflow(study: Study) -> tune.Callback:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it makes
    path = quote(quote(f"{study.folder.absolute()}/mlflow.db"))  # MLflow unquotes it, then SQLite
    return MLflowLoggerCallback(f"sqlite:///file:{path}?uri=true", experiment_name=study.name)


class _WandB(LoggerCallback):
    """Writes an offline run a trial; Ray's own asks for a key, and starts two processes a trial."""

    def __init__(self, study: Study) -> None:
        import wandb

        self._start: Callable[..., Any] = partial(
            wandb.init,
            project=study.name,
            dir=study.folder.absolute(),
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._runs: dict[Any, Any] = {}

    def log_trial_start(self, trial: Any) -> None:
        if trial not in self._runs:  # Tune starts one again whose worker died
            self._runs[trial] = self._start(name=str(trial), config=trial.config)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._runs[trial].log({k: v for k, v in result.items() if isinstance(v, int | float)})

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if run := self._runs.pop(trial, None):
            run.finish()


_LOGGERS: dict[str, tuple[str, MakeLogger]] = {
    "tensorboard": ("tensorboardX", _TensorBoard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _WandB),
}
