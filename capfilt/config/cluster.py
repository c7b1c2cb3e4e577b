"""Settings of the Ray side of a job: which cluster, how many workers, and what each reserves."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from capfilt.config.schema import Config

# Of label selectors; Ray's own check comes with Ray, which takes seconds to import.
_LABEL = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"!?(?:in\({_LABEL}(?:,{_LABEL})*\)|{_LABEL})")
_LEAST = 0.001  # CPUs or GPUs: Ray counts in steps of 0.0001, and the processes of a decoder share decode_cpus


def _selector(text: str) -> str:
    """Return a label selector as Ray reads it: a blank would be part of a label's value."""
    text = text.replace(" ", "")
    if not _SELECTOR.fullmatch(text):
        raise ValueError(f"{text!r} selects no label; write a, !a, in(a,b) or !in(a,b)")
    return text


def _address(text: str) -> str:
    """Return the address of a cluster, which is not the URL of its dashboard."""
    if text.startswith(("http://", "https://")):
        raise ValueError(f"{text} is a dashboard's URL, which capfilt submit takes; give host:port, as 127.0.0.1:6379")
    return text


Address = Annotated[str, AfterValidator(_address)]


def _reserved(count: float) -> float:
    """Return a number of CPUs or GPUs that Ray reserves; of others it says so only when the job begins."""
    if 0 < count < _LEAST:
        raise ValueError(f"{count:g} is too little to reserve; give {_LEAST:g} or more, or 0")
    return count


def _gpus(count: float) -> float:
    """Return a number of GPUs that Ray reserves."""
    if count > 1 and not count.is_integer():
        raise ValueError(f"{count:g} GPUs cannot be reserved; give a whole number, or a share of one GPU")
    return count


CPUs = Annotated[NonNegativeFloat, AfterValidator(_reserved)]
GPUs = Annotated[CPUs, AfterValidator(_gpus)]


class Cluster(Config):
    """The Ray side of a job."""

    address: Address = Field("local", description="local starts Ray on this machine; else host:port or ray://host:port")
    workers: PositiveInt = Field(1, description="actors; each holds both models")
    gpus_per_worker: GPUs = Field(0.0, allow_inf_nan=False, description="GPUs reserved for an actor; 0 runs on CPU")
    cpus_per_worker: CPUs = Field(1.0, allow_inf_nan=False, description="CPUs reserved for an actor")
    labels: dict[str, Annotated[str, AfterValidator(_selector)]] = Field(
        {},
        description="labels of the nodes for the models, such as {ray.io/accelerator-type: 'in(A100,H100)'} or "
        "{pool: '!spot'}",
    )
    decode_cpus: CPUs = Field(
        0.0,
        allow_inf_nan=False,
        description="CPUs of the processes that decode for each actor, one for each unit in hand, which Ray puts on "
        "nodes without GPUs where there are any; 0: the actor's own process decodes",
    )
    attempts: PositiveInt = Field(3, description="times a unit is tried before it is given up")
    deadline_seconds: PositiveFloat = Field(3600.0, description="a unit that takes longer is ended and tried again")
