"""The report of a run: what a federation reached, what left the sites, and where its time went.

``collect`` reads a run directory, ``tables`` and ``plots`` compute what is shown, ``document`` puts it in order,
``markdown`` and ``html`` write it. Nothing here needs FLARE, data or a backbone.
"""

from med_duallora.report.collect import read_run
from med_duallora.report.finished import Run
from med_duallora.report.write import write_report

__all__ = ["Run", "read_run", "write_report"]
