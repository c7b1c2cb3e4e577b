"""Outputs for the numbers of a run: metrics.jsonl, curve.svg, TensorBoard and Weights & Biases."""

import hashlib
import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol

from capfilt.config.training import Tracking
from capfilt.errors import ConfigError
from capfilt.storage import absolute, join, local_path, publish
from capfilt.storage.scratch import Scratch
from capfilt.training.curve import draw
from capfilt.training.folder import TrainingRun

PATIENCE = 10.0  # seconds that a line may wait before it is written
LAG = 0.01  # share of the time since the start that it may wait on an object store, where a write sends the whole file


class Sink(Protocol):
    """Another output for a run's numbers."""

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add the numbers of a step."""
        ...

    def flush(self) -> None:
        """Write what is waiting."""
        ...

    def close(self) -> None:
        """Write what is left, and close."""
        ...


class Tracker:
    """Writes the numbers of a run. A resumed run needs none of them."""

    def __init__(self, run: TrainingRun, settings: Tracking, start: int) -> None:
        run.forget(start)
        self._run, self._sinks = run, _sinks(run, settings, start)
        self._waiting: list[dict[str, float]] = []
        self._losses: dict[str, None] = {}  # the names seen, in their order
        self._begun = self._written = time.monotonic()
        self._lag = LAG if local_path(run.metrics) is None else 0.0

    def add(self, step: int, losses: Iterable[str], values: dict[str, float]) -> None:
        """Add the numbers of a step; losses names those that are losses."""
        self._waiting.append({"step": step, **values})
        self._losses |= dict.fromkeys(losses)
        for sink in self._sinks:
            sink.add(step, values)
        now = time.monotonic()
        if now - self._written > max(PATIENCE, self._lag * (now - self._begun)):
            self.flush()

    def flush(self) -> None:
        """Write waiting lines."""
        if self._waiting:
            self._run.note(self._waiting)
            for sink in self._sinks:
                sink.flush()
        self._waiting, self._written = [], time.monotonic()

    def draw(self) -> None:
        """Draw the losses of the whole run, unless this start of it has none yet: then the last picture stays."""
        self.flush()
        if not self._losses:
            return
        rows = self._run.read_metrics()
        lines = {name: [(row["step"], row[name]) for row in rows if name in row] for name in self._losses}
        picture = draw({name: line for name, line in lines.items() if line}, self._run.name)
        publish(join(self._run.folder, "curve.svg"), picture.encode())

    def close(self) -> None:
        """Write waiting lines, and close all outputs."""
        self.flush()
        for sink in self._sinks:
            sink.close()


class TensorBoard:
    """Events for TensorBoard, one curve for each number.

    For a folder on an object store, events are written to this machine and uploaded as other files are: TensorBoard's
    own client has other settings, waits only seconds for an answer, and then fails for good.
    """

    def __init__(self, folder: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an optional package, and slow to import

        self._folder, local = folder, local_path(folder)
        self._here = Scratch() if local is None else None
        self._writer = SummaryWriter(self._here.name if self._here else str(local), purge_step=start)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what is waiting."""
        self._writer.flush()
        for file in Path(self._here.name).iterdir() if self._here else ():
            publish(join(self._folder, file.name), file.read_bytes())

    def close(self) -> None:
        """Write what is left, and close."""
        self.flush()
        self._writer.close()
        if self._here:
            self._here.cleanup()


class WeightsAndBiases:
    """Weights & Biases; offline, its package writes files, which wandb sync uploads later."""

    def __init__(self, run: TrainingRun, settings: Tracking) -> None:
        require_packages(settings)
        import wandb

        folder = local_path(run.folder) or gettempdir()
        self._run = wandb.init(
            project=settings.wandb_project,
            dir=str(folder),
            mode="offline" if settings.wandb == "offline" else "online",
            name=run.name,
            id=run_id(run.folder),
            resume="allow",
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add the numbers of a step."""
        self._run.log(values, step=step)

    def flush(self) -> None:
        """Do nothing: the package decides when to send."""

    def close(self) -> None:
        """Write what is left, and close."""
        self._run.finish()


def run_id(folder: str) -> str:
    """Return an id of the folder for Weights & Biases, so that a resumed run continues its own curves."""
    return hashlib.sha256(absolute(folder).encode()).hexdigest()[:16]


def require_packages(settings: Tracking) -> None:
    """Raise ConfigError if a tracking service is set whose package is not installed."""
    if settings.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise ConfigError("tracking.wandb: the package wandb is not installed; pip install 'capfilt[wandb]'")


def _sinks(run: TrainingRun, settings: Tracking, start: int) -> list[Sink]:
    sinks: list[Sink] = []
    if settings.tensorboard and importlib.util.find_spec("tensorboard"):
        sinks.append(TensorBoard(join(run.folder, "tensorboard"), start))
    if settings.wandb != "off":
        sinks.append(WeightsAndBiases(run, settings))
    return sinks
