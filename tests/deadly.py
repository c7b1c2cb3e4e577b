"""Settings that end the process that reads them, in a file of its own: for it a process of a scan needs no torch."""

import os


class Deadly:
    """Limits at the sight of which a process ends."""

    @property
    def max_bytes(self) -> int:
        os._exit(1)
