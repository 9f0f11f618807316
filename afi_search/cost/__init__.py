"""What an architecture costs, before any training.

counts       multiply-accumulates, parameters and memory of a network, exactly
latency      how long a network takes on a device, by running it
table        what each choice of each stage costs: numbers that add up
space_costs  the cost of every architecture of a space, and how many keep its constraints
"""

from typing import TYPE_CHECKING

from afi_search.registry import lazy_exports

if TYPE_CHECKING:
    from afi_search.cost.cost import CONVENTIONS as CONVENTIONS
    from afi_search.cost.cost import Cost as Cost
    from afi_search.cost.counts import measure as measure
    from afi_search.cost.space_costs import SpaceCosts as SpaceCosts
    from afi_search.cost.table import CostTable as CostTable
else:
    __getattr__ = lazy_exports(  # what a cost is, and a table that is kept, are read without torch
        __name__,
        {
            "cost": ("CONVENTIONS", "Cost"),
            "counts": ("measure",),
            "space_costs": ("SpaceCosts",),
            "table": ("CostTable",),
        },
    )
