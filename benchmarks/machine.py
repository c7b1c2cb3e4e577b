"""On what a benchmark ran: what its numbers cannot be read without."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe(device: str, *packages: str) -> dict[str, object]:
    """Return the processor, the threads, the versions of packages and Python, and today's date."""
    return {
        "machine": _machine(device),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _machine(device: str) -> str:
    lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    known = {name.strip(): value.strip() for name, value in lines}  # of the last core
    model = known.get("model name", platform.machine())
    generation = ", ".join(f"{name} {known[name]}" for name in ("cpu family", "model") if name in known)
    gpu = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"{model}{f' ({generation})' if generation else ''}, {os.cpu_count()} cores{gpu}"
