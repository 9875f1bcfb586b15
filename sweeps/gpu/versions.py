"""Write the environment of a run: python versions.py FILE."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from vlmprof.environment import accelerator_facts, host_facts

facts = {**host_facts(), **asdict(accelerator_facts("auto"))}
facts.pop("device_uuid")
Path(sys.argv[1]).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
print(facts["device_name"], *(f"{name} {version}" for name, version in facts["packages"].items()), sep=", ")
