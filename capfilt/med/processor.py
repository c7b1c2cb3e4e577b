"""What the processor is, as far as the fastest form of a computation depends on it.

Told by its name and not by a clock, so that a run has the same bytes however busy its machine is.
"""

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
# Units for matrix products in bfloat16 (AMX). Asked once: a compiled training cannot ask.
MATRIX_UNITS = bool(torch.cpu._is_amx_tile_supported())
MAKERS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}  # as their processors call them


def maker() -> str:
    """Return "AMD" or "Intel", whichever made the processor; "" for others, and where nothing tells."""
    text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    return next((maker for name, maker in MAKERS.items() if name in text), "")
