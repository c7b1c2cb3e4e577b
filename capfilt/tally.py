"""The totals of a bootstrap: counts, failed attempts, and where the time went."""

import time
from collections import Counter
from datetime import timedelta

from capfilt.display import counted
from capfilt.records import UnitResult

MODEL_STAGES = ("caption", "score")  # the models compute in these; the other stages overlap with them


class Tally:
    """The totals of the units of a job so far."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.candidates: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.tokens = 0
        self.seconds: Counter[str] = Counter()  # by stage
        self.failures: Counter[str] = Counter()  # attempts that failed, by cause
        self.worker_seconds = 0.0  # in which workers had their models loaded
        self._start = time.monotonic()
        self._seen, self._ready = self._start, 0

    def add(self, result: UnitResult) -> None:
        """Add the result of a unit."""
        self.statuses.update(result.statuses)
        self.candidates.update(result.candidates)
        self.kept.update(result.kept)
        self.tokens += result.tokens
        self.seconds.update(result.seconds)

    def work(self, ready: int) -> float:
        """Note how many workers are ready from now on, and return the worker-seconds since the last such note."""
        now = time.monotonic()
        spent = (now - self._seen) * self._ready
        self._seen, self._ready, self.worker_seconds = now, ready, self.worker_seconds + spent
        return spent

    @property
    def shares(self) -> str:
        """The kept share of each source, for people."""
        return ", ".join(f"{source} {self.kept[source] / n:.0%} kept" for source, n in sorted(self.candidates.items()))

    def __str__(self) -> str:
        lines = [self._samples(), self._texts(), self._time(), self._trouble(), self._set_aside()]
        return "\n".join(line for line in lines if line)

    def _samples(self) -> str:
        failed = {status: count for status, count in sorted(self.statuses.items()) if status != "ok"}
        reasons = ", ".join(f"{count:,} {status}" for status, count in failed.items())
        samples, scored = counted(self.statuses.total(), "sample"), self.statuses["ok"]
        return f"{samples}: {scored:,} scored, {sum(failed.values()):,} failed" + (f" ({reasons})" if reasons else "")

    def _texts(self) -> str:
        kept = ", ".join(
            f"{source} {self.kept[source]:,} of {n:,} kept ({self.kept[source] / n:.1%})"
            for source, n in sorted(self.candidates.items())
        )
        return (
            f"{counted(self.candidates.total(), 'candidate')}: {kept}; {counted(self.tokens, 'token')} generated"
            if kept
            else ""
        )

    def _time(self) -> str:
        """Return how long it took, and what the workers did; stages that overlap with the models may exceed 100 %."""
        samples, elapsed = self.statuses.total(), self._seen - self._start
        if not samples or not elapsed:
            return ""
        line = f"{timedelta(seconds=round(elapsed))}, {samples / elapsed:,.1f} images/s"
        if not self.worker_seconds:
            return line
        share = {stage: seconds / self.worker_seconds for stage, seconds in self.seconds.items()}
        busy = {stage: share.pop(stage, 0.0) for stage in MODEL_STAGES}
        parts = [f"{stage} {part:.0%}" for stage, part in busy.items()]
        beside = ", ".join(f"{stage} {part:.0%}" for stage, part in sorted(share.items()))
        idle = f"models idle {max(0.0, 1 - sum(busy.values())):.0%}"
        return f"{line}; of the workers' time: {', '.join([*parts, idle])}" + (
            f"; beside that {beside}" if share else ""
        )

    def _trouble(self) -> str:
        if not self.failures.total():
            return ""
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(self.failures.items()))
        return f"{counted(self.failures.total(), 'attempt')} at units failed ({causes}); see journal.jsonl"

    def _set_aside(self) -> str:
        count = self.statuses["quarantined"]
        return f"{counted(count, 'sample')} quarantined; to try again, start with --retry-quarantined" if count else ""
