"""Run the `vlmprof` command line with `python -m vlmprof`."""

import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path:
    # -m searches the current folder first, where a user's torch.py or numpy.py would shadow the library
    current = sys.path.pop(0)
    if Path(current) in Path(__file__).resolve().parents:
        sys.path.append(current)
    if sys.modules["vlmprof"].__file__ is None:
        # a folder of the same name without a module was found before an editable installation
        del sys.modules["vlmprof"]

from vlmprof.cli import main

if __name__ == "__main__":
    main()
