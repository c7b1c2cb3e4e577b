"""What went wrong with a unit, in the kinds that are treated differently."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from capfilt.errors import CapfiltError, ModelError

Cause = Literal["data", "store", "model", "exception", "death", "deadline", "node"]
"""What went wrong, in a few fixed words for logs and metrics; Kind says how it is treated."""


class Kind(Enum):
    """Who is to blame."""

    DATA = auto()  # the unit's shard: no other attempt can succeed
    STORE = auto()  # a disk or an object store: another attempt may succeed after some time
    SAMPLE = auto()  # perhaps one of the unit's samples, perhaps the actor or another unit on it


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed."""

    kind: Kind
    reason: str  # for people; may name processes and times
    error: str = ""  # for Kind.SAMPLE: the same words whenever the same happens, since they may end up in the ledger
    cause: Cause = "exception"


class DecoderDied(Exception):  # noqa: N818, it reports on a process, not an error of this one
    """The process that decodes for a worker died, perhaps because of an image."""


def fault_of(error: Exception) -> Fault:
    """Return the fault that a worker's exception stands for."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return Fault(Kind.STORE, reason, cause="store")
    if isinstance(error, CapfiltError) and not isinstance(error, ModelError):
        return Fault(Kind.DATA, reason, cause="data")
    if isinstance(error, DecoderDied):
        return death(str(error))
    # A message may contain addresses or sizes that vary, so only the type is named.
    cause: Cause = "model" if isinstance(error, ModelError) else "exception"
    return Fault(Kind.SAMPLE, reason, f"makes the models raise {type(error).__name__}, alone in its batch", cause)


def death(reason: str, what: str = "worker died") -> Fault:
    """Return the fault of a unit whose worker died, or whose node was lost."""
    return Fault(Kind.SAMPLE, f"its {what}: {reason}", "ends the process of its worker, alone in its batch", "death")


def overdue(seconds: float) -> Fault:
    """Return the fault of a unit that took longer than it may."""
    reason = f"not done in {seconds:g} seconds (deadline_seconds)"
    return Fault(Kind.SAMPLE, reason, "does not come to an end, alone in its batch", "deadline")
