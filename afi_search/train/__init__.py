"""One model, one recipe, one device."""

from afi_search.train.checkpoint import CorruptCheckpoint, delete, load, save
from afi_search.train.evaluation import Evaluation, evaluate
from afi_search.train.memory import keep_freed_memory
from afi_search.train.precision import autocast_dtype, settled
from afi_search.train.schedule import learning_rate
from afi_search.train.seeding import seed_everything
from afi_search.train.trainer import CheckpointMismatch, DivergedError, EpochResult, Trainer

__all__ = [
    "CheckpointMismatch",
    "CorruptCheckpoint",
    "DivergedError",
    "EpochResult",
    "Evaluation",
    "Trainer",
    "autocast_dtype",
    "delete",
    "evaluate",
    "keep_freed_memory",
    "learning_rate",
    "load",
    "save",
    "seed_everything",
    "settled",
]
