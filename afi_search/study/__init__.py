"""What a study keeps: its folder, its ledger, its front, its checkpoints."""

from typing import TYPE_CHECKING

from afi_search.registry import lazy_exports

if TYPE_CHECKING:
    from afi_search.study.info import StudyInfo as StudyInfo
    from afi_search.study.ledger import Ledger as Ledger
    from afi_search.study.pareto import front as front
    from afi_search.study.pareto import hypervolume as hypervolume
else:
    __getattr__ = lazy_exports(  # one trial of a ledger is read without pandas
        __name__,
        {"info": ("StudyInfo",), "ledger": ("Ledger",), "pareto": ("front", "hypervolume")},
    )
