"""A pruner of your own: an Optuna pruner, asked after every epoch of a trial."""

from optuna.pruners import BasePruner

import afi_search


class Hopeless(BasePruner):
    """Stops a trial that is no better than guessing after its second epoch."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def prune(self, study, trial):
        epoch = trial.last_step
        return epoch >= 2 and trial.intermediate_values[epoch] < self.accuracy


afi_search.register_pruner("hopeless", lambda file: Hopeless(accuracy=0.15))
