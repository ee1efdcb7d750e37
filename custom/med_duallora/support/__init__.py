"""What every room may use: files, locks, digests, seeds, progress, devices, memory use and interruptions."""
