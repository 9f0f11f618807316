"""What a study keeps: its folder, its ledger, its front, its checkpoints."""

from afi_search.study.info import StudyInfo
from afi_search.study.ledger import Ledger
from afi_search.study.pareto import front, hypervolume

__all__ = ["Ledger", "StudyInfo", "front", "hypervolume"]
