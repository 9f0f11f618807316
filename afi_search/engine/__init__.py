"""Everything that imports Ray: machines, processes, and the trials that run in them.

Ray reads its settings when it is imported, and its workers inherit theirs: they are made here.
"""

import os

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
    "GOMP_SPINCOUNT": "20000",  # threads that wait soon leave their core to others
}.items():
    os.environ.setdefault(_name, _value)
