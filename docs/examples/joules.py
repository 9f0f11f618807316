"""An objective of your own, which can be a limit as well: the energy of an image."""

import afi_search


def joules(architecture, *, cost, **sizes):
    return 3e-12 * cost.macs + 2e-9 * cost.params


def stages_with_afi(architecture, **sizes):
    return sum(choice is not None for choice in architecture.stages)


afi_search.register_objective(
    afi_search.Objective("joules", joules, title="energy of an image", unit="J")
)
afi_search.register_objective(
    afi_search.Objective("stages_with_afi", stages_with_afi, direction="up")
)
