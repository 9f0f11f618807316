"""Ray Train as the engine of a promotion: it places and restarts workers, and decides nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from threading import Event, Thread
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from afi_search.engine.limits import WORKER_DEATHS
from afi_search.engine.promotion_worker import Probe, PromotionConfig, probe, train_worker
from afi_search.errors import UserError, last_line, refusal
from afi_search.search.stopping import StopRequest
from afi_search.train import EpochResult

_NEWS_SECONDS = 0.5


class PromotionError(UserError):
    """A promotion that cannot be begun, or has failed."""


def measure_worker(config: PromotionConfig) -> Probe:
    """Measure for seconds how fast one worker loads and trains; a PromotionError: it cannot."""
    booked = config.capacity
    worker = ray.remote(probe).options(num_cpus=booked.threads, num_gpus=booked.gpus)
    try:
        measured: Probe = ray.get(worker.remote(config))
    except ray.exceptions.RayTaskError as error:
        raise PromotionError(
            f"{config.architecture}: cannot be trained here: {error.cause}"
        ) from None
    return measured


def train_to_the_end(
    config: PromotionConfig,
    folder: Path,
    on_epoch: Callable[[list[EpochResult]], None],
    on_left_out: Callable[[dict[str, str]], None],
) -> None:
    """Train from the last checkpoint to the recipe's end.

    Args:
        on_epoch: called in a thread of its own with all epochs so far as each of them ends.
        on_left_out: likewise with why each image that a worker left out so far cannot be read.

    Raises:
        PromotionError: the training diverged, something must be mended first, or its workers failed
            again and again.
        KeyboardInterrupt: a person stopped it.
    """
    news = Queue(actor_options={"num_cpus": 0})
    failures: list[str] = []
    booked = config.capacity.resources
    with tempfile.TemporaryDirectory(prefix="afi_search-") as scratch:
        trainer = _Trainer(
            train_worker,
            train_loop_config={"config": config, "news": news},
            scaling_config=ScalingConfig(
                num_workers=config.capacity.concurrency,
                use_gpu=bool(config.capacity.gpus),
                resources_per_worker={k.upper(): v for k, v in booked.items() if v},
            ),
            run_config=RunConfig(
                name=folder.name,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=WORKER_DEATHS),
            ),
        )

        def fail(reason: str) -> None:
            failures.append(reason)
            trainer.abort()

        stop = StopRequest(trainer.abort)
        try:
            with stop.on_signals(), _listening(news, on_epoch, on_left_out, fail):
                trainer.fit()
        except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
            if not stop.asked and not failures:
                raise PromotionError(_reason(error)) from None
        finally:
            news.shutdown(force=True)
    if stop.asked:
        raise KeyboardInterrupt
    if failures:
        raise PromotionError(f"{config.architecture}: {failures[0]}")


class _Trainer(TorchTrainer):
    """Ray's trainer, which leaves Ctrl-C to us."""

    _controller: Any = None
    _over = False

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller
        if self._over:
            self.abort()

    def abort(self) -> None:
        """End the training, also while its workers are starting: Ray's own way waits for them."""
        self._over = True
        if self._controller is not None:
            ray.kill(self._controller)


@contextmanager
def _listening(
    news: Queue,
    on_epoch: Callable[[list[EpochResult]], None],
    on_left_out: Callable[[dict[str, str]], None],
    fail: Callable[[str], None],
) -> Iterator[None]:
    """Pass on each epoch, what is left out and what failed, while the training runs."""
    over = Event()

    def listen() -> None:
        while True:
            ended = over.is_set()
            try:
                item = news.get(timeout=_NEWS_SECONDS)
            except Empty:
                if ended:
                    return
                continue
            except ray.exceptions.RayActorError:
                return  # the session is over, and the queue with it
            try:
                if isinstance(item, str):
                    fail(item)
                elif isinstance(item, dict):
                    on_left_out(item)
                else:
                    on_epoch(item)
            except OSError as error:  # the table of the epochs cannot be written
                fail(refusal(error))

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join(timeout=10)


def _reason(error: Exception) -> str:
    """Return what went wrong in the first worker that failed, without Ray's traces."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    first = next(iter(failures.values()))
    cause = getattr(first, "cause", None) or first
    return f"the training failed {WORKER_DEATHS + 1} times: {last_line(cause)}"
