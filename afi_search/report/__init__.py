"""What a study shows: its front, as data, tables, pictures and pages.

`afi_search.report.export.write_report` writes the files; it is not imported here, because it needs
plotly and matplotlib and the front itself does not.
"""

from afi_search.report.info import StudyInfo
from afi_search.report.pareto import front, hypervolume

__all__ = ["StudyInfo", "front", "hypervolume"]
