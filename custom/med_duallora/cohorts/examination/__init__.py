"""Whether prepared cohorts are fit to join a federation: measured, judged, and said in one sentence.

``measures`` opens every volume, ``findings`` holds one check each, ``examine`` puts them together. Nothing here writes,
needs FLARE or loads a backbone.
"""

from med_duallora.cohorts.examination.examine import Examination, cohorts_at, examine
from med_duallora.cohorts.examination.findings import ERROR, NOTE, WARNING, Finding
from med_duallora.cohorts.examination.measures import SubjectMeasures

__all__ = ["ERROR", "NOTE", "WARNING", "Examination", "Finding", "SubjectMeasures", "cohorts_at", "examine"]
