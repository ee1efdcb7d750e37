"""What every room may use: files, seeds, progress, devices and interruptions."""
