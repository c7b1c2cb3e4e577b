"""Settings of the loop, in which each round's models clean the data that the next round's are trained on."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveInt

from capfilt.config.schema import Config


def _file_or_keys(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"give the path of the job's file, or the job's keys (found {value})")
    return value


Job = Annotated[str | dict[str, object], BeforeValidator(_file_or_keys)]


class RoundsConfig(Config):
    """Repeat fine-tuning, bootstrapping and pre-training, each round from the model of the round before.

    Each job is given as the file that its own command takes, with every required key, or as these keys. The loop
    overrides the keys that connect one job to the next.
    """

    output: str = Field(description="folder or URL of the loop, with a folder for each round; resumed if present")
    rounds: PositiveInt = Field(2, description="rounds to run; raise it later to add rounds to those that are done")
    start: str = Field(description="path or URL of the pre-training checkpoint that the first round starts from")
    captioner: Job = Field(
        description="file of the captioner's fine-tuning, or its keys; the loop sets checkpoint and output"
    )
    filter: Job = Field(
        description="the filter's fine-tuning, likewise; vision_from: '{captioner}' means the round's captioner"
    )
    bootstrap: Job = Field(description="the bootstrap, likewise; the loop sets captioner, filter, run and round")
    pretrain: Job = Field(
        description="the pre-training, likewise; the loop sets output; {clean} among its shards means the round's "
        "clean shards"
    )
