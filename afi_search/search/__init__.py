"""Many trials: the ledger, what to try next, when to stop, and Ray Tune as the engine."""

from afi_search.search.ledger import Ledger

__all__ = ["Ledger"]
