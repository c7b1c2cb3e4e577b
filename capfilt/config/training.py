"""Settings of the training jobs: pre-training, and fine-tuning a captioner or a filter."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from capfilt.config.cluster import Address, Cluster, CPUs, GPUs
from capfilt.config.data import DataSettings
from capfilt.config.initial import InitialWeights
from capfilt.config.model import ModelSettings
from capfilt.config.momentum import MomentumSettings
from capfilt.config.schema import Config


class Schedule(Config):
    """How long and how fast a model learns (AdamW)."""

    steps: PositiveInt | None = Field(None, description="optimiser steps; or give epochs")
    epochs: PositiveInt | None = Field(None, description="passes over all samples; or give steps")
    batch_size: PositiveInt = Field(64, description="images in a step, of all workers together")
    accumulation: PositiveInt = Field(
        1,
        description="parts into which a worker splits its images, computed one after the other before the weights are "
        "updated: this saves memory. LM has the same gradient if all parts hold equally many tokens; ITC and ITM "
        "compare only the images of one part, as if it were a worker. data.workers processes read for each part",
    )
    texts_per_image: PositiveInt = Field(1, description="texts drawn for each image in a step; 1 in the paper")
    learning_rate: PositiveFloat = Field(3e-4, description="peak")
    warmup_steps: NonNegativeInt = Field(
        100, description="steps until the peak; in the decays by epoch they end with the first, as in the original"
    )
    warmup_rate: PositiveFloat | None = Field(
        None, description="rate of the first step; 1e-6 in the original's code; null: the peak divided by warmup_steps"
    )
    decay: Literal["cosine", "linear", "epoch_cosine", "epoch_factor"] = Field(
        "cosine",
        description="after the warm-up: cosine and linear fall to min_rate step by step; epoch_cosine falls once an "
        "epoch, as in the original's fine-tuning; epoch_factor multiplies the rate by decay_factor each epoch, as in "
        "the code of its pre-training. The paper says linear decay at a rate of 0.85, without saying of what: linear "
        "falls by 0.85 if min_rate is 0.15 of the peak",
    )
    decay_factor: float = Field(
        0.9,
        gt=0,
        le=1,
        description="of decay: epoch_factor; 0.9 in the original's code; 0.85 if the paper's rate is per epoch",
    )
    min_rate: NonNegativeFloat = Field(0.0, description="the rate falls no lower; 1e-6 in the original's pre-training")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    decay_vectors: bool = Field(
        True,
        description="apply weight decay to biases, norms and temperature too, as the original's code; its successor "
        "LAVIS does not",
    )
    beta2: float = Field(0.999, gt=0, lt=1, description="of AdamW: decay of the running mean of squared gradients")
    max_gradient_norm: PositiveFloat | None = Field(
        1.0, description="longer gradients are scaled down to this length; null: never, as in the original"
    )
    checkpoint_steps: PositiveInt = Field(500, description="steps between two states to resume from")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            found = "neither" if self.steps is None else f"steps: {self.steps} and epochs: {self.epochs}"
            raise ValueError(f"give either steps or epochs (found {found})")
        return self


class TrainingDevice(Config):
    """The device that a model is trained on, and options for its speed and memory."""

    kind: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU if there is one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of matrix products (autocast); auto: bfloat16 on a GPU that has units for it, else float32; "
        "the original: float32",
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 keeps torch's own number")
    recompute_vision: NonNegativeInt = Field(
        0, description="last blocks of the vision tower that are computed again in the backward pass, to save memory"
    )
    recompute_text: NonNegativeInt = Field(0, description="the same for the text stack")
    compile: bool = Field(False, description="compile the objective with torch.compile; pays off in long runs on a GPU")


class TrainingCluster(Config):
    """The workers of a training job. One worker with address: local runs in this process, without Ray."""

    address: Address = Field("local", description="local starts Ray on this machine; else host:port or ray://host:port")
    workers: PositiveInt = Field(1, description="processes that share each batch; NCCL between GPUs, else gloo")
    gpus_per_worker: GPUs = Field(0.0, allow_inf_nan=False, description="GPUs reserved for a worker; 0 runs on CPU")
    cpus_per_worker: CPUs = Field(1.0, allow_inf_nan=False, description="CPUs reserved for a worker")
    attempts: PositiveInt = Field(
        3, description="the job ends after this many failures in a row without a new state in between"
    )

    @property
    def in_this_process(self) -> bool:
        """Whether the job needs no Ray."""
        return self.workers == 1 and self.address == "local"

    @property
    def asked(self) -> Cluster:
        """The resources that Ray is asked for."""
        return Cluster(**self.model_dump(include={"address", "workers", "gpus_per_worker", "cpus_per_worker"}))


class Tracking(Config):
    """What a training run writes about its progress."""

    every: PositiveInt = Field(10, description="steps between two lines of metrics.jsonl")
    tensorboard: bool = Field(True, description="also write events for TensorBoard, if its package is installed")
    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="Weights & Biases; offline keeps the data in the run's folder, for wandb sync"
    )
    wandb_project: str = Field("capfilt", description="project of Weights & Biases")


# Keys that may change when a run is resumed: they decide how it runs, not what it learns.
FREE = (
    *("output", "tracking", "data.workers", "data.in_memory", "schedule.checkpoint_steps"),
    *("device.threads", "device.compile", "device.recompute_vision", "device.recompute_text"),
    *("cluster.address", "cluster.gpus_per_worker", "cluster.cpus_per_worker", "cluster.attempts"),
)


def _require_pairs(schedule: Schedule, momentum: MomentumSettings | None) -> None:
    """Raise ValueError unless momentum's queues hold pairs, and those of whole steps or of whole parts of steps."""
    if momentum and schedule.texts_per_image != 1:
        raise ValueError(
            f"schedule.texts_per_image: {schedule.texts_per_image}, but momentum takes one text for each image; "
            "set schedule.texts_per_image: 1, or momentum: null"
        )
    size, images, parts = momentum.queue if momentum else 0, schedule.batch_size, schedule.accumulation
    if size * parts % images:  # for any number of workers: together they put in one part of the step
        whole = max(1, images // parts)
        raise ValueError(
            f"momentum.queue: {size} is not a multiple of the {whole} images that schedule.batch_size: {images} puts in"
            f"{f' with schedule.accumulation: {parts}' if parts > 1 else ''}; "
            f"set momentum.queue: {whole * max(1, round(size / whole))}, or a batch size that divides {size}"
        )


def require_equal_shares(schedule: Schedule, cluster: TrainingCluster) -> None:
    """Raise ValueError unless all parts of all workers get the same number of images of a step."""
    shares = cluster.workers * schedule.accumulation
    if schedule.batch_size % shares:
        raise ValueError(
            f"schedule.batch_size: {schedule.batch_size} images cannot be split equally by cluster.workers: "
            f"{cluster.workers} x schedule.accumulation: {schedule.accumulation}; set it to a multiple of {shares}"
        )


class PretrainConfig(Config):
    """Train MED on ITC + ITM + LM (arXiv 2201.12086, section 3.2)."""

    output: str = Field(description="folder or URL of the run: checkpoint, states, metrics; resumed if present")
    model: ModelSettings = Field(description="sizes")
    initial: InitialWeights = Field(InitialWeights(), description="weights to start from")
    data: DataSettings = Field(description="the training data")
    schedule: Schedule = Field(description="how long and how fast")
    momentum: MomentumSettings | None = Field(
        None, description="momentum copies and queues for ITC, as in the paper; null: ITC compares within the batch"
    )
    itm_warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps before ITM is trained; 0 in the paper")
    seed: NonNegativeInt = Field(0, description="of weights, order, text draws, dropout and negatives")
    device: TrainingDevice = Field(TrainingDevice(), description="where the model is trained")
    cluster: TrainingCluster = Field(TrainingCluster(), description="workers, and where they run")
    tracking: Tracking = Field(Tracking(), description="what the run writes about its progress")

    @model_validator(mode="after")
    def _even_batches(self) -> Self:
        require_equal_shares(self.schedule, self.cluster)
        _require_pairs(self.schedule, self.momentum)
        return self


class FinetuneConfig(Config):
    """Fine-tune a captioner (LM) or a filter (ITC + ITM), each a checkpoint of its own (section 3.3)."""

    role: Literal["captioner", "filter"] = Field(description="what the checkpoint becomes")
    checkpoint: str = Field(
        description="path or URL of the checkpoint to start from; it holds the role, and usually is a pre-training one"
    )
    output: str = Field(description="folder or URL of the run: checkpoint, states, metrics; resumed if present")
    data: DataSettings = Field(description="the training data")
    schedule: Schedule = Field(description="how long and how fast")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels; positions are interpolated; null: the checkpoint's own"
    )
    drop_path: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="stochastic depth of the vision tower; null: the checkpoint's own, 0 for an original .pth; "
        "the original: 0 for ViT-B, 0.1 for ViT-L",
    )
    vision_from: str | None = Field(
        None,
        description="path or URL of a checkpoint whose vision tower is taken and kept frozen: if the filter has the "
        "captioner's, bootstrap encodes each image once for both; null: the start's own, which is trained, as in the "
        "original",
    )
    momentum: MomentumSettings | None = Field(
        None,
        description="filter: momentum copies and queues for ITC, as in the paper; null: ITC compares within the batch",
    )
    prompt: str = Field(
        "a picture of ", description="captioner: text before each caption, which the model is given and not scored on"
    )
    seed: NonNegativeInt = Field(0, description="of order, text draws, dropout and negatives")
    device: TrainingDevice = Field(TrainingDevice(), description="where the model is trained")
    cluster: TrainingCluster = Field(TrainingCluster(), description="workers, and where they run")
    tracking: Tracking = Field(Tracking(), description="what the run writes about its progress")

    @model_validator(mode="after")
    def _keys_of_the_role(self) -> Self:
        key, reader = ("momentum", "filter") if self.role == "captioner" else ("prompt", "captioner")
        if getattr(self, key) != type(self).model_fields[key].default:
            raise ValueError(f"{key} is read by role: {reader}, not by role: {self.role}; leave it out")
        if self.vision_from and (self.drop_path or self.device.recompute_vision):
            key = "drop_path" if self.drop_path else "device.recompute_vision"
            raise ValueError(f"{key} is for a vision tower that is trained; set it to 0, or leave out vision_from")
        require_equal_shares(self.schedule, self.cluster)
        _require_pairs(self.schedule, self.momentum)
        return self
