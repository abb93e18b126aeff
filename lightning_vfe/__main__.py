"""`python -m lightning_vfe` is the console script `lightning-vfe`."""

import sys

from lightning_vfe.cli import main

if __name__ == "__main__":
    sys.exit(main())
