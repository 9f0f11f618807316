"""One trainer for tensors on a device and images that are loaded, and what it needs."""

from afi_search.train.checkpoint import CorruptCheckpoint, delete, load, save
from afi_search.train.evaluation import Evaluation, Evaluator
from afi_search.train.optimiser import learning_rate
from afi_search.train.precision import autocast_dtype, resolve_precision
from afi_search.train.seeding import keep_freed_memory, seed_everything
from afi_search.train.trainer import (
    CheckpointMismatch,
    DivergedError,
    EpochResult,
    Trainer,
    trial_trainer,
)

__all__ = [
    "CheckpointMismatch",
    "CorruptCheckpoint",
    "DivergedError",
    "EpochResult",
    "Evaluation",
    "Evaluator",
    "Trainer",
    "autocast_dtype",
    "delete",
    "keep_freed_memory",
    "learning_rate",
    "load",
    "resolve_precision",
    "save",
    "seed_everything",
    "trial_trainer",
]
