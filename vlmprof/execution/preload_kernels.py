"""Modules that the fork server of the kernel commands imports once."""

from vlmprof.execution.fork_server import import_once

# torch's custom ops load the compiler front end on their first call, which takes seconds
import_once(
    (
        "torch",
        "torch._dynamo",
        "vlmprof.execution.kernel_worker",
        "vlmprof.kernels.tools.baselines",
        "vlmprof.kernels.tools.bench_encoder",
        "vlmprof.backbones.vmamba",
    )
)
