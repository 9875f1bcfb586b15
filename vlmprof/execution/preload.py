"""Imported once by the fork server, so that a cell's process starts in milliseconds.

Imports only: nothing here may touch an accelerator or start threads, for neither survives a fork.
"""

import atexit
import gc
import importlib
import signal

from vlmprof.vlm import PRELOAD

# torch's custom ops load the compiler's front end on their first call, which is seconds
for _name in (*PRELOAD, "torch._dynamo", "vlmprof.execution.worker"):
    importlib.import_module(_name)

# Ctrl-C reaches the whole process group; the sweep's own process decides what becomes of the cell
signal.signal(signal.SIGINT, signal.SIG_IGN)

# a collection in a cell's process then passes these modules' objects by, and copies none of their pages
gc.collect()
gc.freeze()
# at the server's own end, what is frozen would be reported as leaked by libraries that look
atexit.register(gc.unfreeze)
