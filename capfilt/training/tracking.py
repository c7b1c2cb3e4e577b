"""Where the numbers of a run go: metrics.jsonl, a picture, TensorBoard and Weights & Biases."""

import hashlib
import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Protocol

from capfilt.config.training import Tracking
from capfilt.errors import ConfigError
from capfilt.storage import absolute, join, local_path, publish
from capfilt.training.curve import draw
from capfilt.training.folder import TrainingRun

PATIENCE = 10.0  # seconds that a line may wait to be written
LAG = 0.01  # of the time since the start: how long it may wait on an object store, where the whole file is sent anew


class Sink(Protocol):
    """Something else that shows a run's numbers."""

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""
        ...

    def flush(self) -> None:
        """Write what waits."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Tracker:
    """Writes down the numbers of a run. Losing it loses nothing that the run needs."""

    def __init__(self, run: TrainingRun, settings: Tracking, start: int) -> None:
        run.forget(start)
        self._run, self._sinks = run, _sinks(run, settings, start)
        self._waiting: list[dict[str, float]] = []
        self._losses: dict[str, None] = {}  # the names seen, in their order
        self._begun = self._written = time.monotonic()
        self._lag = LAG if local_path(run.metrics) is None else 0.0

    def add(self, step: int, losses: Iterable[str], values: dict[str, float]) -> None:
        """Take the numbers of a step, and which of them are losses."""
        self._waiting.append({"step": step, **values})
        self._losses |= dict.fromkeys(losses)
        for sink in self._sinks:
            sink.add(step, values)
        now = time.monotonic()
        if now - self._written > max(PATIENCE, self._lag * (now - self._begun)):
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        if self._waiting:
            self._run.note(self._waiting)
            for sink in self._sinks:
                sink.flush()
        self._waiting, self._written = [], time.monotonic()

    def draw(self) -> None:
        """Draw the losses of the whole run, if this start of it has written any; else the last picture stays."""
        self.flush()
        if not self._losses:
            return
        rows = self._run.read_metrics()
        lines = {name: [(row["step"], row[name]) for row in rows if name in row] for name in self._losses}
        picture = draw({name: line for name, line in lines.items() if line}, self._run.name)
        publish(join(self._run.folder, "curve.svg"), picture.encode())

    def close(self) -> None:
        """Write what waits, everywhere."""
        self.flush()
        for sink in self._sinks:
            sink.close()


class TensorBoard:
    """Events for TensorBoard, one line for each number.

    Those of a folder on a store are written here and sent as other files are: TensorBoard's own client has settings of
    its own, gives a store seconds to answer, and fails for good if it does not.
    """

    def __init__(self, folder: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an optional package, and slow to import

        self._folder, local = folder, local_path(folder)
        self._here = TemporaryDirectory(prefix="capfilt-tensorboard-") if local is None else None
        self._writer = SummaryWriter(self._here.name if self._here else str(local), purge_step=start)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what waits."""
        self._writer.flush()
        for file in Path(self._here.name).iterdir() if self._here else ():
            publish(join(self._folder, file.name), file.read_bytes())

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._writer.close()
        if self._here:
            self._here.cleanup()


class WeightsAndBiases:
    """The service of that name; offline it only writes files, which wandb sync sends later."""

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
        """Take the numbers of a step."""
        self._run.log(values, step=step)

    def flush(self) -> None:
        """Leave it to the package when to send."""

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


def run_id(folder: str) -> str:
    """Return what names a training to Weights & Biases: a resumed one continues its own lines, and no other's."""
    return hashlib.sha256(absolute(folder).encode()).hexdigest()[:16]


def require_packages(settings: Tracking) -> None:
    """Raise ConfigError if what the numbers are to be sent to has no package here."""
    if settings.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise ConfigError("tracking.wandb: the package wandb is not installed; pip install 'capfilt[wandb]'")


def _sinks(run: TrainingRun, settings: Tracking, start: int) -> list[Sink]:
    sinks: list[Sink] = []
    if settings.tensorboard and importlib.util.find_spec("tensorboard"):
        sinks.append(TensorBoard(join(run.folder, "tensorboard"), start))
    if settings.wandb != "off":
        sinks.append(WeightsAndBiases(run, settings))
    return sinks
