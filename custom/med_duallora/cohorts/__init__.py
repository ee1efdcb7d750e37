"""From raw cohorts on disk to one prepared cohort per site, and back into memory."""
