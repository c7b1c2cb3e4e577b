"""The folder of a training run, on local disk or an object store:

config.yaml       settings, written first; once a step is saved, settings that would change the result are refused
shards.parquet    the shards that the run started with
states/           model, optimiser, step and samples left out, to resume from; the last two are kept
data.json         samples and steps of the run, and how many samples the first worker left out so far, by reason
metrics.jsonl     one line every few steps
curve.svg         the losses as a picture
status.json       how its driver is or ended, for capfilt status
tensorboard/      events for TensorBoard, if it is installed
checkpoint/       the trained model, written last: once its config.json exists, the run is done
"""

import errno
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch

from capfilt.background import map_in_threads
from capfilt.config import Config, dump, loads
from capfilt.config.data import DataSettings
from capfilt.config.training import FREE
from capfilt.errors import ConfigError, RunError
from capfilt.med.weights import CONFIG, DAMAGE
from capfilt.storage import (
    absolute,
    append,
    exists,
    join,
    list_files,
    local_path,
    open_input,
    publish,
    read_bytes,
    remove,
    remove_folder,
    staged,
    sweep,
)
from capfilt.storage.scratch import Scratch

KEPT = 2  # states: should the newest be damaged, the one before serves
State = dict[str, Any]  # what torch saves: tensors and numbers by name
logger = logging.getLogger(__name__)


class TrainingRun:
    """The folder of a training run, from which it can be resumed."""

    def __init__(self, folder: str | Path, config: Config, confirm: Callable[[], None] = lambda: None) -> None:
        """Take the folder, the job, and what raises if another driver has taken the run: called before each write."""
        self.folder, self.config, self._confirm = str(folder), config, confirm
        self.checkpoint = join(self.folder, "checkpoint")
        self.metrics = join(self.folder, "metrics.jsonl")
        self.shards = join(self.folder, "shards.parquet")
        self._states = join(self.folder, "states")
        self._settings = join(self.folder, "config.yaml")

    def begin(self) -> None:
        """Make the folder, or resume one with the same settings; errors as in check.

        If the checkpoint is complete, states that a killed run left are removed: they are of no more use.
        """
        if not self.check():
            if not self._begun:
                remove(self.shards)  # those of other settings, if there are any
            publish(self._settings, dump(self.config).encode())
        if self.finished:
            remove_folder(self._states)

    def check(self) -> bool:
        """Return whether the folder holds these settings already; if not, they may be written.

        Raises:
            RunError: the folder has steps of another job, or of settings that would give another result, or it is a
                bootstrap's run.
        """
        if exists(join(self.folder, "run.yaml")):
            raise RunError(f"{self.folder}: holds a bootstrap's run; choose another output folder")
        if not exists(self._settings):
            return False
        try:
            stored = loads(type(self.config), read_bytes(self._settings).decode(errors="replace"), self._settings)
        except ConfigError as error:
            if not self._begun:
                return False
            what = str(error).partition("\n")[0]
            raise RunError(f"{what}; it is of another job or version: choose another output folder") from None
        lines = (dump(_placed(values), without=FREE).splitlines() for values in (stored, self.config))
        changes = [pair for pair in zip_longest(*lines, fillvalue="nothing") if pair[0] != pair[1]]
        if changes and self._begun:  # else the run never started, and its settings may be corrected
            before, after = changes[0]
            raise RunError(
                f"{self._settings}: holds {before.strip()!r} where {after.strip()!r} was given; "
                "put the settings back, or choose another output folder"
            )
        return not changes

    @property
    def name(self) -> str:
        """The last part of the folder's path, for people."""
        return self.folder.rstrip("/").rpartition("/")[2]

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is complete."""
        return exists(join(self.checkpoint, CONFIG))

    @property
    def _begun(self) -> bool:
        """Whether any step was recorded here."""
        return bool(self._saved or list_files(self.checkpoint) or exists(self.metrics))

    @property
    def newest(self) -> int:
        """The step of the newest state; 0 without one."""
        return max((int(name.removesuffix(".pt")) for name in self._saved), default=0)

    @property
    def _saved(self) -> list[str]:
        """The names of the states, by step; other files in the folder are ignored."""
        return [name for name in list_files(self._states) if re.fullmatch(r"\d{9,}\.pt", name)]

    def save(self, state: State) -> None:
        """Add a state to resume from, named by its "step", and remove older ones beyond KEPT and later ones.

        A later one was damaged when the run was resumed: it must not count as one of those kept.
        """
        self._confirm()
        sweep(self._states)  # a half-written state of a killed run takes as much room
        newest = f"{state['step']:09d}.pt"
        # To a file that Python opened: errors of files that torch opens have no errno, by which a full disk is known.
        # In another thread: torch, which calls that file's write, makes an error of its own of a signal in the middle.
        with staged(join(self._states, newest)) as partial, partial.open("wb") as file:
            map_in_threads(lambda opened: torch.save(state, opened), [file])
        names = self._saved
        kept = [name for name in names if name <= newest][-KEPT:]
        for name in names:
            if name not in kept:
                remove(join(self._states, name))

    def restore(self) -> State | None:
        """Return the newest state that can be read, or None at the start of training.

        Raises:
            RunError: there are states, and all of them are damaged.
            OSError: the disk or store fails to read one, which does not mean that it is damaged.
        """
        names = self._saved
        for name in reversed(names):
            file = join(self._states, name)
            try:
                with open_input(file) as stream:
                    return cast(State, torch.load(stream, map_location="cpu", weights_only=True))
            except DAMAGE as error:
                if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of a seek to nowhere
                    raise
                logger.warning("%s: is damaged (%s); resuming from the state before", file, type(error).__name__)
        if names:
            raise RunError(f"{self._states}: every state is damaged; remove the folder to train from the start")
        return None

    def finish(self, write: Callable[[Path], None]) -> None:
        """Write the checkpoint by a call of write(folder), then remove the states."""
        self._confirm()
        sweep(self.checkpoint)
        if local := local_path(self.checkpoint):
            write(local)
        else:
            with Scratch() as folder:
                write(Path(folder))
                self._upload(Path(folder))
        remove_folder(self._states)

    def _upload(self, folder: Path) -> None:
        files = sorted(
            folder.iterdir(), key=lambda file: file.name == CONFIG
        )  # last, since it marks the checkpoint as complete
        for file in files:
            with staged(join(self.checkpoint, file.name)) as partial:
                file.replace(partial)

    def note_data(self, samples: int, steps: int, left_out: Mapping[str, int]) -> None:
        """Write how many samples are trained on in how many steps, and how many were left out by reason."""
        data = {"samples": samples, "steps": steps, "left_out": dict(left_out)}
        publish(join(self.folder, "data.json"), json.dumps(data).encode())

    def forget(self, step: int) -> None:
        """Remove the metrics of this and later steps, which are taken again, and an incomplete last line."""
        self._confirm()
        if exists(self.metrics):
            kept = [line for line, values in self._metric_lines() if values["step"] < step]
            publish(self.metrics, "".join(kept).encode())

    def note(self, lines: list[dict[str, float]]) -> None:
        """Append lines to the metrics."""
        self._confirm()
        append(self.metrics, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def read_metrics(self) -> list[dict[str, float]]:
        """Return all complete lines of the metrics; the last one may be incomplete.

        Raises:
            RunError: a line cannot be read.
        """
        return [values for _, values in self._metric_lines()]

    def _metric_lines(self) -> Iterator[tuple[str, dict[str, float]]]:
        lines = read_bytes(self.metrics).decode(errors="replace").splitlines(keepends=True)
        for number, line in enumerate((line for line in lines if line.endswith("\n")), 1):
            try:
                values = json.loads(line)
                float(values["step"])
            except (ValueError, LookupError, TypeError, RecursionError):
                raise RunError(f"{self.metrics}: line {number} is not a line of metrics; remove it") from None
            yield line, values


def _placed(config: Config) -> Config:
    """Return settings with absolute paths, so that a submitted loop's compare equal to those of a local one.

    Several paths of one source are left as given, since they decide the order of its shards.
    """
    given = {key: getattr(config, key, None) for key in ("checkpoint", "vision_from")}
    changes: dict[str, object] = {key: absolute(path) for key, path in given.items() if path}
    data = getattr(config, "data", None)
    if isinstance(data, DataSettings):
        sources = [source.model_copy(update={"shards": _places(source.shards)}) for source in data.sources]
        changes["data"] = data.model_copy(update={"shards": _places(data.shards), "sources": sources})
    return config.model_copy(update=changes)


def _places(shards: list[str]) -> list[str]:
    local = local_path(shards[0]) if len(shards) == 1 else None
    return shards if local is None else [str(local.resolve())]
