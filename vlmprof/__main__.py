"""`python -m vlmprof`, the same as the `vlmprof` script."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # -m searches the current folder first, where a user's torch.py or numpy.py would hide the library
    sys.path.append(sys.path.pop(0))

from vlmprof.cli import main

if __name__ == "__main__":
    main()
