"""A campaign's hands: FLARE's console with any admin startup kit, the job folders that it submits, the loop."""
