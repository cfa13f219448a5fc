"""`python -m controlplane.cli`: the command `mgw` where its script is not installed."""

import sys

from controlplane.cli import main

sys.exit(main())
