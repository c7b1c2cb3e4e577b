"""Kernels, compiled for GPUs that need not be there: each has room for them, and Triton warns of nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = {80: 166_912, 89: 101_376, 90: 232_448}  # compute capability: bytes of shared memory that a block may take


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, dict[str, int]]:
    """For each kernel, the bytes of shared memory that it takes, by compute capability."""
    pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    found = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiling.py"), *map(str, ROOM)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("capability", ROOM)
def test_kernels_fit_a_gpu(compiled, capability):
    taken = {name: shared[str(capability)] for name, shared in compiled.items()}
    assert len(taken) == 5
    assert max(taken.values()) <= ROOM[capability], taken
