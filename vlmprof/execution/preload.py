"""What the fork server imports once, so that a cell's process starts in milliseconds.

Imports only: nothing here may touch an accelerator or start threads, for neither survives a fork.
"""

import signal

import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import torch  # noqa: F401
import transformers.models.auto.modeling_auto  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import vlmprof.execution.worker  # noqa: F401

# Ctrl-C reaches the whole process group; the sweep's own process decides what becomes of the cell
signal.signal(signal.SIGINT, signal.SIG_IGN)
