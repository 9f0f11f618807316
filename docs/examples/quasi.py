"""A sampler of your own: any of Optuna's or one that you write, made anew for every proposal."""

from optuna.samplers import QMCSampler

import afi_search

afi_search.register_sampler("quasi", lambda file, seed: QMCSampler(seed=seed))
