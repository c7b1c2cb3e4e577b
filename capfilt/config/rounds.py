"""Settings of the loop: how often a captioner and a filter clean the data that the next ones come from."""

from pydantic import Field, PositiveInt

from capfilt.config.loading import Config


class RoundsConfig(Config):
    """Repeat fine-tuning, bootstrapping and pre-training, each round from the model of the round before.

    The jobs are given by files as their own commands take them, with every key that they require; of these the loop
    sets those that tie one job to the next, whatever the files say.
    """

    output: str = Field(description="folder or URL of the loop, with a folder for each round; resumed if present")
    rounds: PositiveInt = Field(2, description="turns of the loop; more of them later go on from those that are done")
    start: str = Field(description="pre-training checkpoint that the first round starts from, a path or URL")
    captioner: str = Field(description="file of the captioner's fine-tuning; checkpoint and output are set")
    filter: str = Field(
        description="file of the filter's fine-tuning; checkpoint and output are set, and vision_from: '{captioner}' "
        "means the captioner of the round"
    )
    bootstrap: str = Field(description="file of the bootstrap; captioner, filter, run and round are set")
    pretrain: str = Field(
        description="file of the pre-training; output is set, and {clean} among its shards is the round's clean shards"
    )
