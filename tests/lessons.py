"""Training runs of the tests' own: tiny models on pictures of one colour, each batch made from its step alone."""

import json
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from models import small_config, write_vocabulary
from processes import start_ranks
from safetensors.torch import load_file
from torch import Tensor

from capfilt.config import Config
from capfilt.config.momentum import MomentumSettings
from capfilt.config.training import Schedule, Tracking, TrainingCluster, TrainingDevice
from capfilt.med.checkpoints import Checkpoint, save
from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.training.data import Batch
from capfilt.training.folder import TrainingRun
from capfilt.training.job import Job
from capfilt.training.loop import train
from capfilt.training.objectives import Captioning, Objective, Pretraining
from capfilt.training.ranks import rank, world_size
from workers.launch import launch

TWO = TrainingCluster(workers=2)
LENGTH = 8  # tokens of every text, so that the mean over half a batch weighs as much as that over the other
SPEEDS = ("samples_per_second", "memory_gib")  # what differs between two equal runs


class Lesson(Config):
    """Settings of a test's training run."""

    output: str
    schedule: Schedule = Schedule(steps=25, batch_size=4, learning_rate=3e-3, warmup_steps=2, checkpoint_steps=10)
    device: TrainingDevice = TrainingDevice(kind="cpu", threads=1)
    tracking: Tracking = Tracking(tensorboard=False)
    objective: Literal["captioning", "pretraining"] = "captioning"
    dropout: float = 0.1
    seed: int = 3
    words: str | None = None  # folder of the vocabulary; else beside the output
    dies_at: int | None = None  # the process that takes this step is killed, once; of several the second

    def planned(self, **changes: object) -> "Lesson":
        """Return the lesson with another schedule."""
        return self.model_copy(update={"schedule": self.schedule.model_copy(update=changes)})


@dataclass
class Colours:
    """Batches of images of one colour each, and texts of equal length."""

    batch_size: int
    epoch_steps: int = 6
    left_out: Counter[str] = field(default_factory=Counter)
    asked: list[int] = field(default_factory=list)  # steps

    def __len__(self) -> int:
        return self.batch_size * self.epoch_steps

    def state_dict(self) -> dict[str, Tensor]:
        return {reason: torch.tensor(count) for reason, count in self.left_out.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.left_out.update({reason: int(count) for reason, count in state.items()})

    def batches(self, steps: range, share: int, shares: int) -> Iterator[Batch]:
        for step in steps:
            self.asked.append(step)
            rows = slice(share * self.batch_size // shares, (share + 1) * self.batch_size // shares)
            yield Batch(*(tensor[rows] for tensor in self.whole(step)))

    def whole(self, step: int) -> Batch:
        rng = np.random.default_rng(step)
        colours = torch.from_numpy(rng.integers(0, 255, (self.batch_size, 3, 1, 1), dtype=np.uint8))
        ids = torch.from_numpy(rng.integers(5, 15, (self.batch_size, LENGTH)))
        ids[:, 0], ids[:, -1] = 2, 3  # [CLS] and [SEP]
        keep = torch.ones_like(ids, dtype=torch.bool)
        return Batch(colours.expand(-1, -1, 32, 32).contiguous(), ids, keep, torch.arange(self.batch_size))


def kill_once(lesson: Lesson, objective: Objective[Batch]) -> None:
    """Kill the process that begins the step that the lesson names; nobody is killed twice."""
    if lesson.dies_at is None:
        return
    trace = Path(lesson.output).with_name("killed")

    def die(module: torch.nn.Module, arguments: tuple[Batch, float]) -> None:
        step = round(arguments[1] * (lesson.schedule.steps or 1))
        if step == lesson.dies_at and rank() == world_size() - 1 and not trace.exists():
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    objective.register_forward_pre_hook(die)


def checkpoint(lesson: Lesson) -> Checkpoint:
    tokenizer = Tokenizer(write_vocabulary(Path(lesson.words or Path(lesson.output).with_name("words"))))
    sizes = small_config(len(tokenizer), encoder=lesson.objective == "pretraining")
    text = sizes.text.model_copy(update={"dropout": lesson.dropout})
    return Checkpoint(MED(sizes.model_copy(update={"text": text})).initialise(lesson.seed), tokenizer)


def job(lesson: Lesson) -> Job[Batch]:
    found = checkpoint(lesson)
    objective: Objective[Batch] = Captioning(*found, "a picture of")
    if lesson.objective == "pretraining":
        objective = Pretraining(*found, 0.2, MomentumSettings(queue=16), lesson.seed)
    kill_once(lesson, objective)
    data = Colours(lesson.schedule.batch_size)
    return Job(objective, data, partial(save, found), idle_parameters=lesson.objective == "pretraining")


def attend(lesson: Lesson, lecture: Job[Batch] | None = None) -> TrainingRun:
    """Train as a worker does."""
    run = TrainingRun(lesson.output, lesson)
    run.begin()
    train(run, lecture or job(lesson), lesson.schedule, lesson.device, lesson.tracking, lesson.seed)
    return run


def metrics(run: TrainingRun) -> list[dict[str, float]]:
    """Return the lines of a run without what differs between two equal ones."""
    lines = (json.loads(line) for line in Path(run.metrics).read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


def weights(run: TrainingRun) -> dict[str, Tensor]:
    return load_file(f"{run.checkpoint}/model.safetensors")


def same(one: TrainingRun, other: TrainingRun) -> bool:
    """Return whether two runs have come to the same numbers, bit by bit."""
    a, b = weights(one), weights(other)
    return metrics(one) == metrics(other) and all(torch.equal(a[name], b[name]) for name in a)


def in_ranks(lesson: Lesson, ranks: int, apart: bool = False) -> TrainingRun:
    """Train in several processes, without Ray; apart, each but the first has a folder of its own."""
    meeting = Path(lesson.output).with_name("meeting")
    start_ranks(_attend_as, (lesson.model_dump_json(), ranks, str(meeting), apart), ranks)
    return TrainingRun(lesson.output, lesson)


def _attend_as(number: int, lesson: str, ranks: int, meeting: str, apart: bool) -> None:
    warnings.simplefilter("error", FutureWarning)  # which a user would see from every rank
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=number, world_size=ranks)
    mine = Lesson.model_validate_json(lesson)
    folder = str(Path(mine.output).with_name(f"folder{number}")) if apart and number else mine.output
    attend(mine.model_copy(update={"output": folder}))
    torch.distributed.destroy_process_group()


def together(lesson: Lesson, cluster: TrainingCluster = TWO) -> TrainingRun:
    """Train as the command does, on as many workers as the cluster says."""
    run = TrainingRun(lesson.output, lesson)
    launch(partial(attend, lesson), run, cluster)
    return run


def without_ray(lesson: Lesson) -> None:
    """Train with one worker, in a process that has not imported Ray, and see that it still has not."""
    together(lesson, TrainingCluster())
    assert "ray" not in sys.modules
