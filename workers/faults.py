"""What went wrong with a unit, in the kinds that are treated differently."""

from dataclasses import dataclass
from enum import Enum, auto

from capfilt.errors import CapfiltError, ModelError


class Kind(Enum):
    """Who is to blame."""

    DATA = auto()  # the unit's shard: no other attempt can succeed
    STORE = auto()  # a disk or an object store: another attempt may succeed when some time has passed
    SAMPLE = auto()  # perhaps one of the unit's samples, perhaps the actor or what else ran on it


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed."""

    kind: Kind
    reason: str  # for people; may name processes and times
    error: str = ""  # of Kind.SAMPLE: the same words whenever the same happens, since they may end in the ledger


def fault_of(error: Exception) -> Fault:
    """Return the fault that an exception of a worker tells of."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return Fault(Kind.STORE, reason)
    if isinstance(error, CapfiltError) and not isinstance(error, ModelError):
        return Fault(Kind.DATA, reason)
    # A message may hold addresses or sizes of the moment, so only the type is told.
    return Fault(Kind.SAMPLE, reason, f"makes the models raise {type(error).__name__}, alone in its batch")


def death(reason: str) -> Fault:
    """Return the fault of a unit whose worker died."""
    return Fault(Kind.SAMPLE, f"its worker died: {reason}", "ends the process of its worker, alone in its batch")


def overdue(seconds: float) -> Fault:
    """Return the fault of a unit that took longer than it may."""
    reason = f"not done in {seconds:g} seconds (deadline_seconds)"
    return Fault(Kind.SAMPLE, reason, "does not come to an end, alone in its batch")
