"""The jobs of each round of the loop, and what connects them.

pipelines.rounds runs these jobs, and workers.submission checks them before it sends a loop to a cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from capfilt.config import BootstrapConfig, ExportConfig, load, loads
from capfilt.config.data import DataSettings, ShardSet
from capfilt.config.rounds import RoundsConfig
from capfilt.config.training import FinetuneConfig, PretrainConfig
from capfilt.errors import ConfigError
from capfilt.runs import Run
from capfilt.storage import absolute, join

C = TypeVar("C", FinetuneConfig, BootstrapConfig, PretrainConfig)

CLEAN, CAPTIONER = "{clean}", "{captioner}"  # placeholders in the files: the clean shards of a round, and its captioner


@dataclass(frozen=True, slots=True)
class Round:
    """The jobs of one round."""

    captioner: FinetuneConfig
    filter: FinetuneConfig
    bootstrap: BootstrapConfig
    pretrain: PretrainConfig

    @property
    def trained(self) -> str:
        """The checkpoint that the next round starts from."""
        return checkpoint_of(self.pretrain)


def rounds(config: RoundsConfig) -> list[Round]:
    """Return the jobs of all rounds, connected with each other.

    Raises:
        ConfigError: a file cannot be read, or does not fit the loop.
    """
    turns: list[Round] = []
    for number in range(config.rounds):
        start = turns[-1].trained if turns else config.start
        turns.append(_filled(read_jobs(config, number, start), _origin(config, "pretrain")))
    return turns


def read_jobs(config: RoundsConfig, number: int, start: str) -> Round:
    """Return the jobs of a round as their files say, with the folders that the loop sets.

    {captioner} and {clean} are not filled in yet. Errors as in rounds.

    Args:
        config: the loop.
        number: index of the round, from 0.
        start: the checkpoint that the round starts from.
    """
    folder = join(config.output, f"round-{number}")
    captioner, judge = (_finetuning(config, role, start, join(folder, role)) for role in ("captioner", "filter"))
    ties: dict[str, object] = {"captioner": checkpoint_of(captioner), "filter": checkpoint_of(judge)}
    ties |= {"run": join(folder, "bootstrap"), "round": number}
    job = _load(BootstrapConfig, config, "bootstrap", ties)
    if not job.export:
        where = _origin(config, "bootstrap")
        raise ConfigError(f"{where}: export: false, but the loop trains on clean shards; set export: true")
    training = _load(PretrainConfig, config, "pretrain", {"output": join(folder, "pretrain")})
    return Round(captioner, judge, job, training)


def checkpoint_of(config: FinetuneConfig | PretrainConfig) -> str:
    """Return the path of a training's checkpoint."""
    return join(config.output, "checkpoint")


def clean_of(job: BootstrapConfig) -> str:
    """Return the folder of a bootstrap's clean shards."""
    return Run(absolute(job.run), "").clean(ExportConfig(run=job.run, policy=job.policy))


def _filled(turn: Round, where: str) -> Round:
    """Return a round with {captioner} and {clean} replaced; where names the pre-training's file."""
    judge = turn.filter
    if judge.vision_from == CAPTIONER:
        judge = judge.model_copy(update={"vision_from": checkpoint_of(turn.captioner)})
    data = _with_clean(turn.pretrain.data, clean_of(turn.bootstrap), where)
    return Round(turn.captioner, judge, turn.bootstrap, turn.pretrain.model_copy(update={"data": data}))


def _finetuning(config: RoundsConfig, role: str, start: str, output: str) -> FinetuneConfig:
    job = _load(FinetuneConfig, config, role, {"checkpoint": start, "output": output})
    if job.role != role:
        where = _origin(config, role)
        raise ConfigError(f"{where}: role: {job.role}, where the loop takes a {role}; give another file")
    return job


def _with_clean(data: DataSettings, clean: str, where: str) -> DataSettings:
    """Return the data of a pre-training with {clean} replaced."""
    if not any(CLEAN in source.shards for source in data.mixture()):
        raise ConfigError(f"{where}: no {CLEAN} among its shards; put it where the clean shards of a round belong")

    def put(source: ShardSet) -> ShardSet:
        shards = [clean if shard == CLEAN else shard for shard in source.shards]
        return source.model_copy(update={"shards": shards})

    return data.model_copy(update={"shards": [], "sources": [put(source) for source in data.mixture()]})


def _load(kind: type[C], config: RoundsConfig, name: str, ties: Mapping[str, object]) -> C:
    """Return the settings of a job, from its file or from the loop's keys, with those that the loop sets."""
    given, overrides = getattr(config, name), [f"{key}={yaml.safe_dump(value)}" for key, value in ties.items()]
    if isinstance(given, str):
        return load(kind, Path(given), overrides)
    return loads(kind, yaml.safe_dump(given), name, overrides)


def _origin(config: RoundsConfig, name: str) -> str:
    """Return where the settings of a job come from, for errors."""
    given = getattr(config, name)
    return given if isinstance(given, str) else name
