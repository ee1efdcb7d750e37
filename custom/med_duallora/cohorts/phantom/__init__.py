"""Synthetic cine MRI of the heart: seeded phantoms with known volumes, laid out on disk as ACDC and M&Ms are.

``draw_subject`` draws a subject's anatomy, body, pose and look from independent streams, ``render_subject`` turns
them into images and labels, ``write_cohort`` writes a whole cohort. Nothing here is meant for diagnosis.
"""

from med_duallora.cohorts.phantom.plan import PRESETS, Entry, plan_cohort
from med_duallora.cohorts.phantom.recipe import Recipe
from med_duallora.cohorts.phantom.subject import Identity, Phantom, Rendering, draw_subject, render_subject
from med_duallora.cohorts.phantom.tables import TRUTH_FILE
from med_duallora.cohorts.phantom.writer import write_cohort
from med_duallora.cohorts.provenance import RECIPE_FILE, is_synthetic

__all__ = [
    "PRESETS",
    "RECIPE_FILE",
    "TRUTH_FILE",
    "Entry",
    "Identity",
    "Phantom",
    "Recipe",
    "Rendering",
    "draw_subject",
    "is_synthetic",
    "plan_cohort",
    "render_subject",
    "write_cohort",
]
