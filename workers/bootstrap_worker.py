"""The body of a bootstrap actor: both models on one device. It holds no logic of its own."""

import threading
from collections.abc import Callable

import torch

from capfilt.bootstrap import CapFilt, capfilt_unit
from capfilt.config import BootstrapConfig
from capfilt.records import Unit, UnitResult
from capfilt.runs import Run


class BootstrapWorker:
    """Builds the models once, then takes units through capfilt_unit."""

    def __init__(self, build: Callable[[BootstrapConfig], CapFilt], config: BootstrapConfig, run: Run) -> None:
        torch.set_num_threads(config.device.threads)  # sums round differently for other numbers of threads
        self._models, self._config, self._run = build(config), config, run
        self._turn = threading.Lock()

    def run(self, unit: Unit) -> UnitResult:
        """Bootstrap a unit. Two may run at once: one reads, decodes or writes while the other has the models."""
        return capfilt_unit(unit, self._models, self._config, self._run, self._turn)
