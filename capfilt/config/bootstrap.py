"""Settings of the bootstrap and export jobs.

`RESULTS` names the keys that decide what the models say: they make the models fingerprint of a run,
and a run refuses to go on with other values. All other keys may change between two starts.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from capfilt.config.cluster import Address, Cluster
from capfilt.config.schema import Config

Divisor = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]
"""What logits are divided by. Below a millionth quotients leave float32, and no token is the likeliest."""


class ImageLimits(Config):
    """What an image may cost. What is over a limit is refused and counted."""

    max_bytes: PositiveInt = Field(50_000_000, description="largest encoded file, bytes")
    max_pixels: int = Field(
        89_478_485, gt=0, le=178_956_970, description="maximum pixels, by the header; Pillow sets the upper limit"
    )
    min_side: PositiveInt = Field(1, description="minimum width and height, pixels")
    max_aspect: PositiveFloat = Field(1000.0, description="maximum ratio of the longer side to the shorter")


class ImageDecoding(ImageLimits):
    """How images are decoded for the models, and what one may cost."""

    jpeg_margin: float | None = Field(
        2.0,
        ge=1,
        description="decode a JPEG at a half or a quarter of its size where both sides stay at least this many times "
        "the models' side; null decodes it whole",
    )


class Sampling(Config):
    """How captions are drawn. The defaults are what the original's nucleus sampling really does."""

    method: Literal["nucleus", "greedy", "beam"] = Field("nucleus", description="how the next token is chosen")
    captions: int = Field(1, gt=0, le=1000, description="captions for each image; greedy and beam give one")
    top_k: NonNegativeInt = Field(50, description="keep the k likeliest tokens before the nucleus; 0 keeps all")
    top_p: float = Field(0.9, gt=0, le=1, description="minimum probability mass of the nucleus")
    temperature: Divisor = Field(1.0, description="divides the logits before the draw")
    repetition_penalty: Divisor = Field(1.1, description="divides the score of tokens already written; 1 is off")
    beams: PositiveInt = Field(3, description="hypotheses of the beam search")
    max_length: PositiveInt = Field(20, description="maximum tokens of a caption, prompt included")
    min_length: NonNegativeInt = Field(5, description="minimum tokens of a caption, prompt included")
    prompt: str = Field("a picture of ", description="text that each caption continues; not part of the result")

    @model_validator(mode="after")
    def _one_caption_without_chance(self) -> Self:
        if self.method != "nucleus" and self.captions > 1:
            raise ValueError(f"{self.method} gives one caption, {self.captions} were asked for; use method: nucleus")
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is over max_length {self.max_length}")
        return self


class FilterSettings(Config):
    """How texts are scored."""

    first_token: Literal["[ENC]", "[CLS]"] = Field(
        "[ENC]", description="first token of a scored text: [ENC] as trained; [CLS] repeats the defect of other ports"
    )
    max_tokens: int = Field(35, ge=3, description="a longer text is cut, tokens")
    max_words: PositiveInt = Field(30, description="a longer text is cut, words")
    itc: bool = Field(
        True, description="also score by ITC, for thresholds and reports: one more pass over the texts alone"
    )


class Controls(Config):
    """Images that are scored with texts of others, so that `capfilt calibrate` can measure what a threshold lets in."""

    share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of samples that get two such texts of their batch, one of a shard and one caption; 0 is off",
    )


class Device(Config):
    """Where and how exactly the models compute."""

    kind: Literal["cpu", "cuda"] = Field("cpu", description="cuda needs cluster.gpus_per_worker, or --local")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="precision; auto: bfloat16 on GPUs and on CPUs with matrix units for it (AMX), else float32; a run "
        "keeps what it began with",
    )
    linear: Literal["auto", "plain", "packed"] = Field(
        "auto",
        description="form of the linear layers; packed: weights laid out for oneDNN, on CPUs (in float32 on Intel's, "
        "for texts alone); auto: packed for bfloat16 and on AMD's and Intel's processors, where that is faster; a run "
        "keeps what it began with",
    )
    threads: int = Field(
        1, gt=0, le=4096, description="CPU threads of a model; sums round differently for other values"
    )

    @model_validator(mode="after")
    def _on_its_kind(self) -> Self:
        if self.kind == "cuda" and self.linear == "packed":
            raise ValueError("linear: packed is for CPUs; leave it at auto")
        return self


class Policy(Config):
    """Which candidates are kept. The defaults are BLIP's: the ITM head says "match", web and synthetic alike."""

    name: str = Field("default", pattern=r"^[A-Za-z0-9_-]+$", description="part of the path of the clean shards")
    web_itm: float = Field(0.5, ge=0, le=1, description="minimum P(match) of a web text")
    synthetic_itm: float = Field(0.5, ge=0, le=1, description="minimum P(match) of a synthetic text")
    human_itm: float = Field(0.0, ge=0, le=1, description="minimum P(match) of a human text; the paper keeps all")
    web_itc: float | None = Field(None, ge=-1, le=1, description="minimum cosine of a web text")
    synthetic_itc: float | None = Field(None, ge=-1, le=1, description="minimum cosine of a synthetic text")
    mix: Literal["both", "web_else_synthetic", "best", "top_k", "web_only", "synthetic_only", "weighted"] = Field(
        "both", description="which of the texts over the thresholds an image keeps"
    )
    top_k: PositiveInt = Field(1, description="texts an image keeps under mix: top_k")
    web_weight: float = Field(0.5, ge=0, le=1, description="chance of the web text under mix: weighted")
    seed: int = Field(0, description="of the draw under mix: weighted")
    min_words: NonNegativeInt = Field(1, description="minimum words of a text")
    max_words: PositiveInt = Field(256, description="maximum words of a text")
    drop_duplicates: bool = Field(
        True, description="of equal texts of one image keep one, the web text first where mix takes it"
    )


class BootstrapConfig(Config):
    """Caption and score every sample of the input shards."""

    input: list[str] = Field(min_length=1, description="shards: files, folders, globs, {000..127} ranges, URLs")
    run: str = Field(description="folder or URL of the run; made if absent, resumed if present")
    captioner: str = Field(
        description="checkpoint that writes captions: a folder, an original .pth, a transformers folder; path or URL"
    )
    filter: str = Field(description="checkpoint that scores texts")
    round: int = Field(0, ge=0, le=1_000_000, description="turn of the bootstrapping loop; changes the sampling noise")
    seed: NonNegativeInt = Field(0, description="of the sampling noise")
    source: Literal["web", "human"] = Field("web", description="what the shards' own texts are")
    batch_size: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="images in a forward pass, cut at multiples from a shard's start; 0: found by trial when a run "
        "begins, and kept by it",
    )
    unit_size: NonNegativeInt = Field(
        0,
        description="samples between two commits, rounded up to whole batches, which take some minutes at most; "
        "0: 4096 on a GPU, 64 on a CPU",
    )
    sampling: Sampling = Field(Sampling(), description="how captions are drawn")
    scoring: FilterSettings = Field(FilterSettings(), description="how texts are scored")
    controls: Controls = Field(Controls(), description="known mismatches, to choose thresholds by")
    images: ImageDecoding = Field(ImageDecoding(), description="how images are decoded, and what one may cost")
    device: Device = Field(Device(), description="where the models run")
    damage: Literal["fail", "keep-readable", "skip-shard"] = Field(
        "fail", description="what to do with a cut or damaged shard"
    )
    max_failed_share: float = Field(0.5, ge=0, le=1, description="a shard with a larger share of failed samples fails")
    max_quarantined: NonNegativeInt = Field(
        16, description="samples of a shard that one start sets aside because they kill, stop or break workers"
    )
    decode_threads: PositiveInt = Field(
        2, description="threads that decode images for a unit; an actor has two in hand, three on a GPU"
    )
    cluster: Cluster = Field(Cluster(), description="the Ray side")
    export: bool = Field(True, description="write clean shards under the policy when the ledger is complete")
    policy: Policy = Field(Policy(), description="which candidates are kept")

    @model_validator(mode="after")
    def _on_the_gpus_that_it_reserves(self) -> Self:
        if self.cluster.gpus_per_worker and self.device.kind == "cpu":
            raise ValueError(
                f"cluster.gpus_per_worker: {self.cluster.gpus_per_worker:g} reserves GPUs for models on a CPU; "
                "set device.kind: cuda"
            )
        return self


RESULTS = ("round", "seed", "source", "batch_size", "sampling", "scoring", "controls", "images", "device")


class ExportConfig(Config):
    """Write the clean shards of a finished run under a policy. No model is needed."""

    run: str = Field(description="folder or URL of the run")
    policy: Policy = Field(Policy(), description="which candidates are kept")
    keep_empty: bool = Field(False, description="also write samples without a kept text")
    workers: PositiveInt = Field(1, description="processes, one shard each")
    address: Address = Field("local", description="where several workers run: local, or the address of a Ray cluster")
