"""From raw cohorts on disk to one prepared cohort per scanner vendor, and back into memory."""
