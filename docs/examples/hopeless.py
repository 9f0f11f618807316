"""A pruner of your own: an Optuna pruner, asked after every epoch of a trial."""

from optuna.pruners import BasePruner

import afi_search


class Hopeless(BasePruner):
    """Stops a trial that is no better than guessing after its first epoch."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def prune(self, study, trial):
        return trial.intermediate_values[trial.last_step] < self.accuracy


afi_search.register_pruner("hopeless", lambda file: Hopeless(accuracy=0.15))
