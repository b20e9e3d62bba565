"""python -m msft: see cli/main.py."""

import sys

from msft.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
