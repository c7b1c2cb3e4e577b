"""How far a training is, from its folder alone and without loading torch."""

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import takewhile

import yaml

from capfilt.storage import exists, join, read_bytes


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The last step in the metrics of a training, which lag some seconds behind."""

    done: int = 0  # steps
    steps: int | None = None  # of the whole training; None before it has begun
    batch_size: int = 0  # samples of a step
    losses: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0  # samples a second since the line before

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step at the current rate; None while unknown."""
        return (self.steps - self.done) * self.batch_size / self.rate if self.steps and self.rate else None

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return asdict(self) | {"seconds_left": self.seconds_left}


def is_training(root: str) -> bool:
    """Return whether a folder is that of a training."""
    return exists(join(root, "config.yaml"))


def is_trained(root: str) -> bool:
    """Return whether a folder holds the checkpoint of a finished training."""
    return exists(join(root, "checkpoint", "config.json"))


def read_progress(root: str) -> TrainingProgress:
    """Return how far a training is. What cannot be read counts as unknown: this is for people."""
    steps, batch_size = _steps(root), _batch_size(root)
    line = _last_line(root)
    if "step" not in line:
        return TrainingProgress(0, steps, batch_size)
    # a line holds step, then the losses, then what else was measured
    losses = dict(takewhile(lambda item: item[0] != "learning_rate", list(line.items())[1:]))
    return TrainingProgress(int(line["step"]) + 1, steps, batch_size, losses, line.get("samples_per_second", 0.0))


def _steps(root: str) -> int | None:
    """Return the steps of the whole training, which its settings alone do not say where they count epochs."""
    try:
        return int(json.loads(read_bytes(join(root, "data.json")))["steps"])
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _batch_size(root: str) -> int:
    try:
        return int(yaml.safe_load(read_bytes(join(root, "config.yaml")))["schedule"]["batch_size"])
    except (FileNotFoundError, yaml.YAMLError, ValueError, LookupError, TypeError):
        return 0


def _last_line(root: str) -> dict[str, float]:
    """Return the last complete line of the metrics; empty if there is none that can be read."""
    try:
        lines = read_bytes(join(root, "metrics.jsonl")).split(b"\n")[:-1]
        values = {name: float(value) for name, value in json.loads(lines[-1]).items()}
        return values if all(map(math.isfinite, values.values())) else {}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
