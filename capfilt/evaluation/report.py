"""The result of an evaluation: one JSON object with the figures and all it takes to get them again."""

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch

from capfilt.config import Device
from capfilt.config.evaluation import EvaluateConfig
from capfilt.med.checkpoints import checkpoint_hash
from capfilt.med.fetch import fetch
from capfilt.storage import open_input

PACKAGES = ("capfilt", "torch", "timm", "tokenizers", "numpy", "pillow", "simplejpeg", "pycocoevalcap")


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluation came to."""

    figures: Mapping[str, object]
    files: Sequence[str]  # that annotations were read from
    left_out: Mapping[str, str] = field(default_factory=dict)  # name of an image -> why it cannot be decoded
    written: object = None  # captions or answers, in the form that the data set's server takes


def report(config: EvaluateConfig, measured: Measured, seconds: float) -> dict[str, object]:
    """Return the result of an evaluation, as written to its file."""
    return {
        "task": config.task,
        "figures": dict(measured.figures),
        "left_out": dict(Counter(measured.left_out.values())),
        "left_out_images": dict(sorted(measured.left_out.items())),
        "checkpoint": {"path": config.checkpoint, "hash": checkpoint_hash(fetch(config.checkpoint))},
        "files": [{"path": file, "sha256": _sha256(file)} for file in measured.files],
        "device": _device(config.device),
        "versions": {"python": platform.python_version(), **_versions()},
        "seconds": round(seconds, 2),
        "config": config.model_dump(mode="json"),
        **({"written": measured.written} if measured.written else {}),
    }


def _sha256(file: str) -> str:
    with open_input(file) as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _device(device: Device) -> dict[str, object]:
    name = torch.cuda.get_device_name() if device.kind == "cuda" else platform.processor() or platform.machine()
    return {**device.model_dump(), "name": name}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found
