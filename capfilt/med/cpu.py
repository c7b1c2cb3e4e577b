"""What the processor is, as far as the fastest form of a computation depends on it.

Its name decides, not a timing, so that a run has the same bytes however busy its machine is.
"""

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
# Units for matrix products in bfloat16 (AMX). Looked up once, since compiled training code cannot.
MATRIX_UNITS = bool(torch.cpu._is_amx_tile_supported())
MAKERS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}  # by the name that their processors report


def maker() -> str:
    """Return "AMD" or "Intel", whichever made the processor; "" for others, and where the system does not say."""
    text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    return next((maker for name, maker in MAKERS.items() if name in text), "")
