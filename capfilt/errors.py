"""Errors that a user can mend. The command line shows them as one line and exits with their code."""

from collections.abc import Sequence

from capfilt.display import counted, redact

PASSING = 75  # exit code of a failure that may pass by itself: EX_TEMPFAIL of sysexits.h


class CapfiltError(Exception):
    """Something a user can mend; the message says where, what is wrong and what to do.

    The message may quote the web and goes to terminals and logs, so it is redacted.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))

    def __reduce__(self) -> tuple[object, ...]:
        """Return how to unpickle this error: subclasses cannot be built from their message alone."""
        return _as_it_was, (type(self), self.args), vars(self)


def _as_it_was(kind: type[CapfiltError], args: tuple[object, ...]) -> CapfiltError:
    return kind.__new__(kind, *args)


class ConfigError(CapfiltError):
    """The configuration cannot be used; the message says which key and why."""


class ShardError(CapfiltError):
    """A shard cannot be read as asked; the message names the file, the offset or key, and the remedy."""


class ImageError(CapfiltError):
    """An image is refused. `reason` is the status code that its row of the samples table gets."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class AnnotationError(CapfiltError):
    """An annotation file, or an image that it names, cannot be used; the message names file, entry and remedy."""


class CheckpointError(CapfiltError):
    """A checkpoint is missing, of the wrong kind, or does not fit the model."""


class RunError(CapfiltError):
    """A run folder cannot be used as asked: it belongs to other settings, or is incomplete."""


class QueryError(CapfiltError):
    """A query of a ledger cannot be answered; the message quotes it, and names what can be asked instead."""


class ModelError(CapfiltError):
    """A model gave numbers that cannot be used; the message names the sample."""


class WorkerError(CapfiltError):
    """No worker can be built, or one unit after another fails: the fault is not in the data, and the job stops."""


class JobError(CapfiltError):
    """A job cannot be submitted, found or stopped as asked; the message names it, and says what to do."""


class NoAnswerError(CapfiltError):
    """A cluster did not answer, but may do so later; the message names its address or the request."""

    exit_code = PASSING


class StoppedError(CapfiltError):
    """A job ended early because it was asked to; what was done is committed."""

    exit_code = 4

    def __init__(self, summary: str, failed: Sequence[str] = ()) -> None:
        lead = "stopped as asked, and all that is done is committed; to go on, run the same again"
        more = "".join(f"\n  failed until then: {reason}" for reason in failed)
        super().__init__(f"{lead}\n{summary}{more}")


class PlanningError(CapfiltError):
    """Some shards could not be looked at, so no unit was begun; what is known of the others is kept."""

    def __init__(self, failed: Sequence[str], passing: bool, ended: str = "") -> None:
        """Take the reasons, whether all of them may pass, and what ended the planning early, if anything did."""
        listing = "\n  ".join([*failed, *filter(None, [ended])])
        lead = (
            f"{counted(len(failed), 'shard')} could not be looked at, so that nothing is planned and no unit was begun"
        )
        super().__init__(f"{lead}; to go on, run the same again:\n  {listing}")
        self.exit_code = PASSING if passing else 1


class FailedUnitsError(CapfiltError):
    """Some units failed on every attempt; all the others are committed."""

    exit_code = 3

    def __init__(self, failed: Sequence[str], summary: str = "", remedy: str = "to retry, run the same again") -> None:
        listing = "\n  ".join(failed)
        lead = f"{summary}\n" if summary else ""
        super().__init__(f"{lead}{len(failed)} failed, all others are committed; {remedy}:\n  {listing}")
        self.failed = list(failed)
