"""Settings of the loop: how often a captioner and a filter clean the data that the next ones come from."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveInt

from capfilt.config.schema import Config


def _file_or_keys(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"give the file of the job, or its keys themselves (found {value})")
    return value


Job = Annotated[str | dict[str, object], BeforeValidator(_file_or_keys)]


class RoundsConfig(Config):
    """Repeat fine-tuning, bootstrapping and pre-training, each round from the model of the round before.

    The jobs are given by files as their own commands take them, with every key that they require, or by these keys
    themselves. The loop sets those that tie one job to the next, whatever the files say.
    """

    output: str = Field(description="folder or URL of the loop, with a folder for each round; resumed if present")
    rounds: PositiveInt = Field(2, description="turns of the loop; more of them later go on from those that are done")
    start: str = Field(description="pre-training checkpoint that the first round starts from, a path or URL")
    captioner: Job = Field(
        description="file of the captioner's fine-tuning, or its keys themselves; checkpoint and output are set"
    )
    filter: Job = Field(
        description="the same of the filter's fine-tuning; checkpoint and output are set, and vision_from: "
        "'{captioner}' means the captioner of the round"
    )
    bootstrap: Job = Field(description="the same of the bootstrap; captioner, filter, run and round are set")
    pretrain: Job = Field(
        description="the same of the pre-training; output is set, and {clean} among its shards is the round's clean "
        "shards"
    )
