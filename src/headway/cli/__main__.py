"""`python -m headway.cli`, where a module is wanted: `torchrun --nproc-per-node 2 -m headway.cli finetune ...`."""

import sys

from headway.cli import main

if __name__ == "__main__":
    sys.exit(main())
