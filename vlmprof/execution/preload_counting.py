"""Modules that the fork server of commands that count costs imports once."""

from vlmprof.execution.fork_server import import_once

import_once(
    (
        "vlmprof.backbones.vit",
        "vlmprof.backbones.vitdet",
        "vlmprof.backbones.vmamba",
        "vlmprof.cost.count",
    )
)
