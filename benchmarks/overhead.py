"""What the engine costs: trials that train nothing and report five times.

    python -m benchmarks.overhead --trials 100 --repeats 3
    python -m benchmarks.overhead --trials 100 1000 3000 --contenders plain ours --out FOLDER

Every line is a process of its own with a Ray session of its own, in turn; the clock runs from
Tune's start to its end, without `ray.init`. All have reused actors, one core a trial and Tune's
loggers switched off, as our engine has them.

plain      Ray Tune alone: random values, nothing kept but Tune's own files
ours       our engine with its ledger, a journal file, and its random sampler
optuna     Ray Tune with OptunaSearch (TPE, two objectives) on SQLite
ours-tpe   our engine with its ledger and TPE
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from afi_search.cost import SpaceCosts
from afi_search.engine.capacity import Capacity, cluster_nodes, plan_trials
from afi_search.engine.ray_session import RaySession
from afi_search.engine.tune import run_workers
from afi_search.search.conductor import Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Space, SpaceFile
from afi_search.study import Ledger
from afi_search.study.folder import StudyFile
from benchmarks.rounds import RESULTS

REPORTS = 5
SPACE = {
    "backbone": "resnet32",
    "stages": {
        "all": {
            "width": ["off", "base", "B"],
            "ratio": [2, 4, 8, 16],
            "attention": ["none", "se", "ge", "cbam", "eca"],
            "scorer": ["block", "stage"],
        }
    },
    "recipe": {"epochs": REPORTS},
}


class Idle(tune.Trainable):
    """Reports five times; in our engine's form and in Tune's own at once."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin a trial."""
        self._number = config.get("number", 0)
        self._accuracies: list[float] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Report at once."""
        self._accuracies.append(0.1 * (1 + len(self._accuracies)))
        return {
            "number": self._number,
            "accuracies": list(self._accuracies),
            "accuracy": self._accuracies[-1],
            "macs": 1.0,
            "seconds": 1.0,
            "images_per_second": 1.0,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing."""


def ours(sampler: str) -> Callable[[int, Path, Capacity], Callable[[], object]]:
    """Return what prepares our engine with that sampler, the costs measured."""

    def prepare(trials: int, folder: Path, capacity: Capacity) -> Callable[[], object]:
        search = {"trials": trials, "sampler": sampler, "baselines": False}
        file = SpaceFile.model_validate({**SPACE, "search": search})
        space = Space(file)
        costs = SpaceCosts(space, num_classes=100, image_size=32)
        costs.of(space[0])
        ledger = Ledger.create(folder, StudyFile("overhead", "", "", file, {}))
        conductor = Conductor(
            ledger,
            file,
            Proposer(space, costs),
            make_pruner(file),
        )
        worker = tune.with_resources(Idle, {"cpu": 1})
        return lambda: run_workers(conductor, worker, capacity.concurrency)

    return prepare


def draw(trial: Any) -> dict[str, str]:
    """Draw an architecture; a function of the module, as Tune pickles its searcher."""
    return {"architecture": Space(SpaceFile.model_validate(SPACE)).sample(trial).text}


def ray_tune(with_optuna: bool) -> Callable[[int, Path, Capacity], Callable[[], object]]:
    """Return what prepares Ray Tune alone, or with OptunaSearch on SQLite."""

    def prepare(trials: int, folder: Path, capacity: Capacity) -> Callable[[], object]:
        searcher = None
        if with_optuna:
            searcher = ConcurrencyLimiter(
                OptunaSearch(
                    space=draw,
                    metric=["accuracy", "macs"],
                    mode=["max", "min"],
                    storage=optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}"),
                    seed=0,
                ),
                max_concurrent=capacity.concurrency,
            )
        return lambda: tune.run(
            tune.with_resources(Idle, {"cpu": 1}),
            config=None if with_optuna else {"x": tune.uniform(0, 1)},
            search_alg=searcher,
            num_samples=trials,
            stop={"training_iteration": REPORTS},
            reuse_actors=True,
            storage_path=str(folder),
            verbose=0,
        )

    return prepare


CONTENDERS = {
    "plain": ray_tune(with_optuna=False),
    "ours": ours("random"),
    "optuna": ray_tune(with_optuna=True),
    "ours-tpe": ours("tpe"),
}


def measure(name: str, trials: int) -> dict[str, Any]:
    """Run one contender in this process; return its row."""
    with tempfile.TemporaryDirectory() as folder, RaySession() as session:
        session.wait()
        capacity = plan_trials(SpaceFile.model_validate(SPACE).search, cluster_nodes())
        run = CONTENDERS[name](trials, Path(folder), capacity)
        before, began, cpu = peak_mib(), time.perf_counter(), time.process_time()
        run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "contender": name,
        "trials": trials,
        "seconds": seconds,
        "trials_per_second": trials / seconds,
        "reports_per_second": trials * REPORTS / seconds,
        "driver_cpu_ms_per_trial": 1000 * cpu / trials,
        "driver_mib": peak_mib(),
        "driver_growth_mib": peak_mib() - before,
    }


def peak_mib() -> float:
    """Return the most memory this process has had resident, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Run the contenders in turn, print a table and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help="run here and print JSON")
    asked = parser.parse_args()
    if asked.one:
        row = measure(asked.contenders[0], asked.trials[0])
        print(json.dumps(row))
        return
    rows = []
    for trials in asked.trials:
        for _ in range(asked.repeats):
            for name in asked.contenders:
                command = [sys.executable, "-m", "benchmarks.overhead", "--one"]
                command += ["--trials", str(trials), "--contenders", name]
                ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(
                    {**json.loads(ended.stdout.splitlines()[-1]), "load": os.getloadavg()[0]}
                )
    table = pd.DataFrame(rows)
    if "plain" in asked.contenders:
        plain = table[table["contender"] == "plain"].groupby("trials")["trials_per_second"].mean()
        table["of_plain"] = table["trials_per_second"] / table["trials"].map(plain)
    asked.out.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(asked.out / "overhead.csv", index=False)
    print(f"ray {ray.__version__}, {os.cpu_count()} cores, {REPORTS} reports a trial")
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
