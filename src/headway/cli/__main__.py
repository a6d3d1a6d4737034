"""`python -m headway.cli`, for launchers that take a module: `torchrun --nproc-per-node 2 -m headway.cli finetune ...`."""

import sys

from headway.cli import main

if __name__ == "__main__":
    sys.exit(main())
