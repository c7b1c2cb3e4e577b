"""The loop: fine-tune a captioner and a filter, bootstrap with them, pre-train on what is kept, and again from that.

OUTPUT/round-0/captioner, filter, bootstrap and pretrain are the folders of the jobs, each as its own command leaves it.
Source: BLIP, arXiv 2201.12086, section 3.3 and figure 3, which show one round.
"""

import gc
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from capfilt.config import BootstrapConfig
from capfilt.config.rounds import RoundsConfig
from capfilt.config.training import FinetuneConfig, PretrainConfig
from capfilt.dry_run import DryRun
from capfilt.errors import StoppedError
from capfilt.models import build_models, checkpoint_hashes, describe_models
from capfilt.rounds import Round, clean_of, rounds
from capfilt.runs import find_run
from capfilt.runs.lease import find_driver, require_free
from capfilt.runs.status import Board, keep_status
from capfilt.runs.stop import JOBS, Stop
from capfilt.storage import absolute, exists, join
from capfilt.training.folder import TrainingRun
from pipelines import bootstrap, bootstrap_dry_run, finetune, pretrain
from pipelines.resolving import as_begun
from workers.driving import driving

C = TypeVar("C", FinetuneConfig, PretrainConfig)


@dataclass(frozen=True, slots=True)
class Stage:
    """A job of a round.

    is_done raises RunError if the folder has other settings, which run would refuse.
    """

    name: str
    run: Callable[[Stop], str]
    is_done: Callable[[], bool]
    dry_run: Callable[[], DryRun]


def run(config: RoundsConfig, say: Callable[[str], None]) -> str:
    """Run what is left of all rounds, report the result of each job, and return the last checkpoint.

    The loop has a lease, a status and requests to stop in its own folder, as each job has in its folder.

    Raises:
        CapfiltError: a job fails, the file of one does not fit the loop, or another driver is at work on the loop.
            Finished jobs are kept, and not repeated.
        StoppedError: the loop or a job was asked to stop, even if the job then finished.
    """
    turns, root, stop = rounds(config), absolute(config.output), Stop()
    with driving(root, JOBS, stop) as (lease, _), keep_status(root, lambda: lease.is_held) as board:
        _run_stages(config, turns, stop, board, say)
    runs = " ".join(shlex.quote(turn.bootstrap.run) for turn in turns[-2:])
    say(f"next: capfilt compare {runs}" if len(turns) > 1 else f"next: capfilt stats {runs}")
    return turns[-1].trained


def dry_run(config: RoundsConfig) -> DryRun:
    """Return what run would do, and what would stop it. Nothing is written.

    A job reads what the one before it writes, so only the first unfinished job is checked in detail.
    """
    dry, found = DryRun("rounds"), False
    turns = rounds(config)
    with dry.examine():
        require_free(absolute(config.output))
    for number, turn in enumerate(turns):
        for stage in _stages(turn):
            topic = f"round {number}, {stage.name}"
            with dry.examine():
                if found:
                    dry.tell(topic, "follows")
                elif stage.is_done():
                    dry.tell(topic, "is done")
                else:
                    found = True
                    inner = stage.dry_run()
                    for about, fact in inner.facts:
                        dry.tell(topic, f"{about}: {fact}")
                    for problem in inner.problems:
                        dry.refuse(f"{topic}: {problem}")
    return dry


def _run_stages(config: RoundsConfig, turns: list[Round], stop: Stop, board: Board, say: Callable[[str], None]) -> None:
    left = [(number, stage) for number, turn in enumerate(turns) for stage in _stages(turn)]
    for done, (number, stage) in enumerate(left):
        if stop.asked:
            raise StoppedError(f"{config.output}: goes on with round {number}, {stage.name}")
        folder = f"round-{number}/{stage.name}"
        board.enter(folder, done, len(left))
        say(f"round {number}, {stage.name}")
        say(stage.run(stop))
        board.enter(folder, done + 1, len(left))
        gc.collect()  # frees the GPU, on which a job trained in this process, for the workers of the next
        torch.cuda.empty_cache()


def _stages(turn: Round) -> Iterator[Stage]:
    job = turn.bootstrap
    for config in (turn.captioner, turn.filter):
        yield _training(config.role, config, finetune.run, finetune.dry_run)
    yield Stage(
        "bootstrap",
        run=lambda stop: _bootstrap(job, stop),
        is_done=lambda: _is_bootstrapped(job),
        dry_run=lambda: bootstrap_dry_run.dry_run(job, describe_models, checkpoint_hashes),
    )
    yield _training("pretrain", turn.pretrain, pretrain.run, pretrain.dry_run)


def _training(name: str, config: C, work: Callable[[C, Stop], str], dry_run: Callable[[C], DryRun]) -> Stage:
    def is_done() -> bool:
        run = TrainingRun(config.output, config)
        run.check()
        return run.finished

    return Stage(name, partial(work, config), is_done, partial(dry_run, config))


def _bootstrap(job: BootstrapConfig, stop: Stop) -> str:
    # the job itself would start Ray and need its inputs to find out, but ends what a driver left that died at its end
    if _is_bootstrapped(job) and find_driver(absolute(job.run)) is None:
        return f"{job.run}: is done"
    return bootstrap.run(job, build_models, checkpoint_hashes(job), stop)


def _is_bootstrapped(job: BootstrapConfig) -> bool:
    if not exists(join(clean_of(job), "_SUCCESS")):
        return False
    find_run(as_begun(job), checkpoint_hashes(job))
    return True
