"""Trials that are listed beforehand: every architecture with every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna.trial import FrozenTrial

from afi_search.cost import Cost
from afi_search.space import Architecture
from afi_search.study.ledger import Proposal


class ListedProposer:
    """Proposes each architecture once a seed, the first seed of all of them first.

    So an interrupted confirmation has something to say of every architecture.

    Args:
        origins: the architectures, each with why it is confirmed.
        seeds: of each architecture's trainings.
        cost: returns what an architecture costs.
    """

    def __init__(
        self,
        origins: Mapping[Architecture, str],
        seeds: Sequence[int],
        cost: Callable[[Architecture], Cost],
    ) -> None:
        self._origins = origins
        self._cost = cost
        self._left = dict.fromkeys((a, seed) for seed in seeds for a in origins)

    @property
    def exhausted(self) -> bool:
        """Whether every pair has been proposed."""
        return not self._left

    def learn(self, trial: FrozenTrial) -> None:
        """Learn of a trial of the ledger: it is not proposed again."""
        architecture = Architecture.parse(trial.user_attrs["architecture"])
        self._left.pop((architecture, trial.user_attrs["seed"]), None)

    def propose(self, number: int) -> Proposal | None:
        """Return the next pair, whatever number the ledger gives it, or None."""
        if self.exhausted:
            return None
        architecture, seed = next(iter(self._left))
        del self._left[architecture, seed]
        return Proposal(
            architecture,
            self._cost(architecture),
            self._origins[architecture],
            params={},
            distributions={},
            system_attrs={},
            seed=seed,
        )
