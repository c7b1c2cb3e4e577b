"""The state of a run, a training or a loop, from its folder alone: its driver, its progress, and what to do next."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from capfilt import storage
from capfilt.display import counted
from capfilt.errors import RunError
from capfilt.ledger import complete_shards
from capfilt.runs.folder import EXPORTS, load_run
from capfilt.runs.lease import Owner, find_driver
from capfilt.runs.status import StatusRecord, read_status
from capfilt.runs.stop import stop_requested
from capfilt.training.progress import TrainingProgress, is_trained, is_training, read_progress

AGAIN = "run the same again to go on"

_ENDS = ("done", "partly", "stopped", "failed", "ended")  # phases that the last record of a driver may have

_WORDS = {
    "running": "running",
    "stopping": "stopping: what is in hand is finished, and nothing else begun",
    "done": "done",
    "stopped": f"stopped as asked; {AGAIN}",
    "partly": "partly done; some units or shards failed; to retry them, run the same again",
    "failed": "failed; fix it, then run the same again",
    "ended": f"ended at once; {AGAIN}",
    "died": f"its driver has died; {AGAIN}",
    "idle": f"nobody is at work; {AGAIN}",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a run folder says. The record is None for a kept rehearsal, and for a run of an early version."""

    run: str
    state: str  # one of running, stopping, done, partly, stopped, failed, ended, died, idle
    driver: Owner | None  # alive or not
    record: StatusRecord | None
    shards: tuple[int, int] | None = None  # complete ones and all; only counted if there is no record
    job: "Standing | None" = None  # for a loop: the job that it has reached, if that has begun
    training: TrainingProgress | None = None

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON values, with the rate in samples a second and the seconds left."""
        record = self.record
        more = {} if record is None else {"rate": record.rate, "seconds_left": record.seconds_left}
        return {
            "run": self.run,
            "state": self.state,
            "driver": self.driver and asdict(self.driver),
            "progress": record and asdict(record) | more,
            "shards": self.shards and dict(zip(("complete", "all"), self.shards, strict=True)),
            "job": self.job and self.job.to_json(),
            "training": self.training and self.training.to_json(),
        }


def look_at(root: str) -> Standing:
    """Return the state of a run.

    Raises:
        RunError: the folder is not a run, or cannot be seen from here.
    """
    root = storage.absolute(root)
    driver, record = find_driver(root), read_status(root)  # a driver writes its last record before it leaves
    if driver is None and record is not None and record.phase not in _ENDS:
        driver = find_driver(root)  # it may have started between the two reads, and begun a record
    training = read_progress(root) if is_training(root) else None
    if driver is None and record is None and training is None:
        return _without_record(root)
    state = _state(root, driver, record, training)
    return Standing(root, state, driver, record, job=_begun_job(root, record), training=training)


def render_standing(standing: Standing, submitted: bool = False) -> str:
    """Return the state of a run as lines for people; submitted says that a job of it on a cluster has not ended."""
    return "\n".join(_lines(standing, submitted))


def at_work(root: str) -> Standing | None:
    """Return the state of a run that a driver is at work on, or else of its running export; None where neither is."""
    exports = storage.join(root, EXPORTS)
    for place in (root, *(storage.join(exports, name) for name in storage.list_folders(exports))):
        with suppress(RunError):
            standing = look_at(place)
            if standing.state in ("running", "stopping"):
                return standing
    return None


def _state(root: str, driver: Owner | None, record: StatusRecord | None, training: TrainingProgress | None) -> str:
    if driver is not None and driver.seems_alive:
        return "stopping" if stop_requested(root) else "running"
    if training and is_trained(root):  # its driver may have died just before it recorded that
        return "done"
    if record is not None and record.phase in _ENDS:
        return record.phase
    return "idle" if driver is None and record is None else "died"


def _without_record(root: str) -> Standing:
    """Return the state of a run that has neither a lease nor a record, such as a kept rehearsal."""
    run = load_run(root)  # raises if it is not a run
    shards = (len(complete_shards(run)), len(run.plan())) if run.has_plan() else None
    whole = shards is not None and shards[0] == shards[1]
    return Standing(root, "done" if whole else "idle", None, None, shards)


def _begun_job(root: str, record: StatusRecord | None) -> Standing | None:
    if record is None or not record.job:
        return None
    try:
        return look_at(storage.join(root, record.job))
    except RunError:  # the loop has only just reached it
        return None


def _words(standing: Standing, submitted: bool) -> str:
    reason = standing.record.reason if standing.record else ""
    words = _WORDS[standing.state]
    if submitted and standing.state not in ("running", "stopping", "done"):
        words = f"{words.partition(';')[0]}; its job is at work, and starts a driver or ends"
    return words + (f" ({reason})" if reason and standing.state == "failed" else "")


def _lines(standing: Standing, submitted: bool) -> Iterator[str]:
    yield f"{standing.run}: {_words(standing, submitted)}"
    if standing.state == "partly" and standing.record is not None:
        yield from (f"  reason    {line}" for line in standing.record.reason.splitlines())
    if standing.driver is not None:
        yield f"  driver    {standing.driver}, last seen {_ago(standing.driver.renewed)}"
    if standing.shards is not None:
        yield f"  shards    {standing.shards[0]:,} of {standing.shards[1]:,} complete"
    alive = standing.state in ("running", "stopping")
    if standing.training is not None:
        yield from _steps(standing.training, alive)
    elif standing.record is not None:
        yield from _progress(standing.record, alive)
    if standing.job is not None:
        yield from _lines(standing.job, submitted)


def _progress(record: StatusRecord, alive: bool) -> Iterator[str]:
    if record.jobs:
        yield f"  at        {record.job}; {record.jobs_done} of {record.jobs} jobs are done"
        return
    if not record.samples:
        yield f"  begun     {_ago(record.started)}; no unit is begun yet"
        return
    yield f"  samples   {record.done:,} of {record.samples:,} ({record.done / record.samples:.1%})"
    pace = f"{counted(record.units, 'unit')}, {record.rate:,.1f} samples/s"
    nothing = "nothing was left to do" if record.phase == "done" else "no unit was done"
    yield f"  since     {_ago(record.started)}: {pace if record.units or record.phase == 'bootstrap' else nothing}"
    if alive and record.wanted:
        yield f"  workers   {record.ready} of {record.wanted} ready"
    if alive and record.seconds_left is not None:
        yield f"  left      {timedelta(seconds=round(record.seconds_left))}"
    if record.phase == "export":
        yield "  export    of the clean shards, at work"
    shares = [f"{source} {record.kept.get(source, 0) / n:.0%} of {n:,}" for source, n in record.candidates.items() if n]
    if shares:
        yield f"  kept      {', '.join(sorted(shares))}"
    failed = [f"{count:,} {status}" for status, count in sorted(record.statuses.items()) if status != "ok"]
    if failed:
        yield f"  failed    {', '.join(failed)}"
    yield f"  recorded  {_ago(record.time)}"


def _steps(training: TrainingProgress, alive: bool) -> Iterator[str]:
    if not alive and not training.done:
        return
    share = f" of {training.steps:,} ({training.done / training.steps:.1%})" if training.steps else ""
    rate = f", {training.rate:,.1f} samples/s" if training.rate else ""
    yield f"  steps     {training.done:,}{share}{rate}"
    if training.losses:
        yield f"  losses    {', '.join(f'{name} {loss:.3f}' for name, loss in training.losses.items())}"
    if alive and training.seconds_left is not None:
        yield f"  left      {timedelta(seconds=round(training.seconds_left))}"


def _ago(moment: float) -> str:
    seconds = max(0.0, datetime.now().timestamp() - moment)
    return f"{timedelta(seconds=round(seconds))} ago"
