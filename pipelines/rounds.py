"""The loop: fine-tune a captioner and a filter, bootstrap with them, pre-train on what is kept, and again from that.

OUTPUT/round-0/captioner, filter, bootstrap and pretrain are the folders of the jobs, each as its own command leaves it.
Source: BLIP, arXiv 2201.12086, section 3.3 and figure 3, which show one round.
"""

import gc
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from capfilt.build import build_models, checkpoint_hashes, describe_models
from capfilt.config import BootstrapConfig, ExportConfig, load
from capfilt.config.data import DataSettings, ShardSet
from capfilt.config.rounds import RoundsConfig
from capfilt.config.training import FinetuneConfig, PretrainConfig
from capfilt.errors import ConfigError, StoppedError
from capfilt.outlook import Outlook
from capfilt.runs import Run, find_run
from capfilt.runs.stop import Stop
from capfilt.storage import absolute, exists, join
from capfilt.training.folder import TrainingRun
from pipelines import bootstrap, bootstrap_outlook, finetune, pretrain
from pipelines.settling import as_begun

C = TypeVar("C", FinetuneConfig, PretrainConfig)

CLEAN, CAPTIONER = "{clean}", "{captioner}"  # in the files: the clean shards of a round, and its captioner


@dataclass(frozen=True, slots=True)
class Round:
    """The jobs of a turn of the loop."""

    captioner: FinetuneConfig
    filter: FinetuneConfig
    bootstrap: BootstrapConfig
    pretrain: PretrainConfig

    @property
    def trained(self) -> str:
        """The checkpoint that the next round starts from."""
        return _checkpoint(self.pretrain)


@dataclass(frozen=True, slots=True)
class Stage:
    """A job of a round: what does it, what tells whether that was done, and what it would do.

    is_done raises RunError where the folder is one of other settings, which run would refuse.
    """

    name: str
    run: Callable[[Stop], str]
    is_done: Callable[[], bool]
    dry_run: Callable[[], Outlook]


def run(config: RoundsConfig, say: Callable[[str], None]) -> str:
    """Run what is left of all rounds, telling what comes of it, and return the last checkpoint.

    Raises:
        CapfiltError: of a job, or a file of one does not fit into the loop. What is done stays, and is not done again.
        StoppedError: a job was asked to stop, even if it came to its end all the same.
    """
    turns, stop = rounds(config), Stop()
    for number, turn in enumerate(turns):
        for stage in _stages(turn):
            if stop.asked:
                raise StoppedError(f"{config.output}: goes on with round {number}, {stage.name}")
            say(f"round {number}, {stage.name}")
            say(stage.run(stop))
            gc.collect()  # what trained in this process leaves the GPU to the workers of the next job
            torch.cuda.empty_cache()
    runs = " ".join(shlex.quote(turn.bootstrap.run) for turn in turns[-2:])
    say(f"next: capfilt compare {runs}" if len(turns) > 1 else f"next: capfilt stats {runs}")
    return turns[-1].trained


def dry_run(config: RoundsConfig) -> Outlook:
    """Return what run would do, and what keeps it from that. Nothing is written.

    A job reads what the one before it writes, so of those that are left only the first is looked at in detail.
    """
    outlook, found = Outlook("rounds"), False
    for number, turn in enumerate(rounds(config)):
        for stage in _stages(turn):
            topic = f"round {number}, {stage.name}"
            with outlook.examine():
                if found:
                    outlook.tell(topic, "follows")
                elif stage.is_done():
                    outlook.tell(topic, "is done")
                else:
                    found = True
                    inner = stage.dry_run()
                    for about, fact in inner.facts:
                        outlook.tell(topic, f"{about}: {fact}")
                    for problem in inner.problems:
                        outlook.refuse(f"{topic}: {problem}")
    return outlook


def rounds(config: RoundsConfig) -> list[Round]:
    """Return the jobs of all rounds, each with what ties it to the others.

    Raises:
        ConfigError: a file cannot be read, or does not fit into the loop.
    """
    turns: list[Round] = []
    for number in range(config.rounds):
        start = turns[-1].trained if turns else config.start
        turns.append(_round(config, number, start))
    return turns


def _round(config: RoundsConfig, number: int, start: str) -> Round:
    folder = join(config.output, f"round-{number}")
    captioner, judge = (
        _finetuning(Path(path), role, start, join(folder, role))
        for role, path in (("captioner", config.captioner), ("filter", config.filter))
    )
    if judge.vision_from == CAPTIONER:
        judge = judge.model_copy(update={"vision_from": _checkpoint(captioner)})
    ties: dict[str, object] = {"captioner": _checkpoint(captioner), "filter": _checkpoint(judge)}
    ties |= {"run": join(folder, "bootstrap"), "round": number}
    job = load(BootstrapConfig, Path(config.bootstrap), _set(ties))
    if not job.export:
        raise ConfigError(f"{config.bootstrap}: export: false, but the loop trains on clean shards; set export: true")
    training = load(PretrainConfig, Path(config.pretrain), _set({"output": join(folder, "pretrain")}))
    data = _with_clean(training.data, _clean(job), config.pretrain)
    return Round(captioner, judge, job, training.model_copy(update={"data": data}))


def _finetuning(path: Path, role: str, start: str, output: str) -> FinetuneConfig:
    config = load(FinetuneConfig, path, _set({"checkpoint": start, "output": output}))
    if config.role != role:
        raise ConfigError(f"{path}: role: {config.role}, where the loop takes a {role}; give another file")
    return config


def _with_clean(data: DataSettings, clean: str, path: str) -> DataSettings:
    """Return the data of a pre-training with the clean shards in their place."""
    if not any(CLEAN in source.shards for source in data.mixture()):
        raise ConfigError(f"{path}: no {CLEAN} among its shards; put it where the clean shards of a round belong")

    def put(source: ShardSet) -> ShardSet:
        shards = [clean if shard == CLEAN else shard for shard in source.shards]
        return source.model_copy(update={"shards": shards})

    return data.model_copy(update={"shards": [], "sources": [put(source) for source in data.mixture()]})


def _stages(turn: Round) -> Iterator[Stage]:
    job = turn.bootstrap
    for config in (turn.captioner, turn.filter):
        yield _training(config.role, config, finetune.run, finetune.dry_run)
    yield Stage(
        "bootstrap",
        run=lambda stop: _bootstrap(job, stop),
        is_done=lambda: _is_bootstrapped(job),
        dry_run=lambda: bootstrap_outlook.dry_run(job, describe_models, checkpoint_hashes),
    )
    yield _training("pretrain", turn.pretrain, pretrain.run, pretrain.dry_run)


def _training(name: str, config: C, work: Callable[[C, Stop], str], foresee: Callable[[C], Outlook]) -> Stage:
    def is_done() -> bool:
        run = TrainingRun(config.output, config)
        run.check()
        return run.finished

    return Stage(name, partial(work, config), is_done, partial(foresee, config))


def _bootstrap(job: BootstrapConfig, stop: Stop) -> str:
    if _is_bootstrapped(job):  # to find that out for itself, the job would start Ray, and need its inputs
        return f"{job.run}: is done"
    return bootstrap.run(job, build_models, checkpoint_hashes(job), stop)


def _is_bootstrapped(job: BootstrapConfig) -> bool:
    if not exists(join(_clean(job), "_SUCCESS")):
        return False
    find_run(as_begun(job), checkpoint_hashes(job))
    return True


def _checkpoint(config: FinetuneConfig | PretrainConfig) -> str:
    return join(config.output, "checkpoint")


def _clean(job: BootstrapConfig) -> str:
    return Run(absolute(job.run), "").clean(ExportConfig(run=job.run, policy=job.policy))


def _set(values: Mapping[str, object]) -> list[str]:
    """Return values as overrides of a config."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
