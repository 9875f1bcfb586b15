"""Imported once by the fork server of commands that count costs."""

from vlmprof.execution.fork_server import import_once

import_once(
    (
        "vlmprof.backbones.vit",
        "vlmprof.backbones.vitdet",
        "vlmprof.backbones.vmamba",
        "vlmprof.cost.count",
    )
)
