"""``python -m med_duallora`` is the same program as ``med-duallora``."""

import sys

from med_duallora.cli import main

if __name__ == "__main__":
    sys.exit(main())
