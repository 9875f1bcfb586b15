"""Modules that the fork server of a sweep imports once."""

from vlmprof.execution.fork_server import import_once
from vlmprof.vlm import PRELOAD

# torch's custom ops load the compiler front end on their first call, which takes seconds
import_once((*PRELOAD, "torch._dynamo", "vlmprof.execution.worker"))
