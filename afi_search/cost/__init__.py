"""What an architecture costs, before any training.

counts       multiply-accumulates, parameters and memory of a network, exactly
latency      how long a network takes on a device, by running it
table        what each choice of each stage costs: numbers that add up
space_costs  the cost of every architecture of a space, and how many keep its constraints
"""

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.cost.counts import count, measure
from afi_search.cost.latency import LatencyError, time_stages
from afi_search.cost.space_costs import SpaceCosts
from afi_search.cost.table import CostTable

__all__ = [
    "Cost",
    "CostTable",
    "Count",
    "LatencyError",
    "Parts",
    "SpaceCosts",
    "count",
    "measure",
    "time_stages",
]
