"""One trainer for tensors on a device and images that are loaded, and what it needs."""

from afi_search.device import keep_freed_memory as keep_freed_memory
from afi_search.device import seed_everything as seed_everything
from afi_search.train.checkpoint import CorruptCheckpoint as CorruptCheckpoint
from afi_search.train.checkpoint import delete as delete
from afi_search.train.checkpoint import load as load
from afi_search.train.checkpoint import save as save
from afi_search.train.evaluation import Evaluation as Evaluation
from afi_search.train.evaluation import Evaluator as Evaluator
from afi_search.train.optimiser import learning_rate as learning_rate
from afi_search.train.precision import autocast_dtype as autocast_dtype
from afi_search.train.precision import resolve_precision as resolve_precision
from afi_search.train.trainer import CheckpointMismatch as CheckpointMismatch
from afi_search.train.trainer import DivergedError as DivergedError
from afi_search.train.trainer import EpochResult as EpochResult
from afi_search.train.trainer import Trainer as Trainer
from afi_search.train.trainer import trial_trainer as trial_trainer
