"""`python -m visionforge`."""

import sys

from visionforge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
