"""What an architecture costs, before any training.

counts     multiply-accumulates and parameters, exactly
memory     what a training step holds at its peak, without running one
latency    how long a network takes on a device, by running it
stages     the cost of every architecture of a space, from a few networks
"""

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.cost.counts import count, measure
from afi_search.cost.latency import StageTimes, time_stages
from afi_search.cost.memory import count_kept, measure_memory
from afi_search.cost.stages import StageCosts, stage_costs

__all__ = [
    "Cost",
    "Count",
    "Parts",
    "StageCosts",
    "StageTimes",
    "count",
    "count_kept",
    "measure",
    "measure_memory",
    "stage_costs",
    "time_stages",
]
