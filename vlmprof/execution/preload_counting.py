"""What the fork server imports once for processes that count costs, as `preload` does for cells."""

import atexit
import gc
import importlib
import signal

# no collection goes over the libraries while they load, nor, once they are frozen, while cells are counted
gc.disable()
for _name in ("vit", "vitdet", "vmamba"):
    importlib.import_module(f"vlmprof.backbones.{_name}")
importlib.import_module("vlmprof.cost.count")
gc.freeze()
gc.enable()
# at the server's own end, what is frozen would be reported as leaked by libraries that look
atexit.register(gc.unfreeze)

# Ctrl-C reaches the whole process group; the command's own process decides what becomes of the counting
signal.signal(signal.SIGINT, signal.SIG_IGN)
