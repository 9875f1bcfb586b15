"""What the fork server imports once for the kernels' commands, as `preload` does for cells."""

import importlib
import signal

# torch's custom ops load the compiler's front end on their first call, which is seconds
for _name in ("torch", "torch._dynamo", "vlmprof.execution.kernel_worker", "vlmprof.kernels.tools.baselines",
              "vlmprof.kernels.tools.bench_encoder", "vlmprof.backbones.vmamba"):  # fmt: skip
    importlib.import_module(_name)

# Ctrl-C reaches the whole process group; the command's own process decides what becomes of the attempt
signal.signal(signal.SIGINT, signal.SIG_IGN)
