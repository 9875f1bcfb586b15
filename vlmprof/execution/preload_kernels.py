"""Imported once by the fork server of the kernels' commands."""

from vlmprof.execution.fork_server import import_once

# torch's custom ops load the compiler's front end on their first call, which takes seconds
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
