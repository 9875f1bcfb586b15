"""`python -m vlmprof`, the same as the `vlmprof` script."""

import sys
from pathlib import Path

import vlmprof

if __name__ == "__main__" and not sys.flags.safe_path:
    # -m searches the current folder first, where a user's torch.py or numpy.py would hide the library
    current = sys.path.pop(0)
    if Path(current) in Path(vlmprof.__file__).parents:
        sys.path.append(current)

from vlmprof.cli import main

if __name__ == "__main__":
    main()
