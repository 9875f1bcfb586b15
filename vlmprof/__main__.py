"""`python -m vlmprof`, the same as the `vlmprof` script."""

import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path:
    # -m searches the current folder first, where a user's torch.py or numpy.py would hide the library
    current = sys.path.pop(0)
    if Path(current) in Path(__file__).resolve().parents:
        sys.path.append(current)
    if sys.modules["vlmprof"].__file__ is None:
        # a folder of that name, without a module in it, came before an editable installation
        del sys.modules["vlmprof"]

from vlmprof.cli import main

if __name__ == "__main__":
    main()
