import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs, which a user does not have."""
    folder = Path(os.environ.get("CAPFILT_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set CAPFILT_SHARED to its folder")
    return folder
