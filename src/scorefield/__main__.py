"""`python -m scorefield`: the command line without installing a script."""

import sys

from scorefield.cli import main

sys.exit(main())
