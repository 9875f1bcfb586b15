"""What tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import one_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return one_run(tmp_path / "before")
