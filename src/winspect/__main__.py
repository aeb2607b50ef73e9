"""``python -m winspect`` is the command ``winspect``."""

import sys

from winspect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
