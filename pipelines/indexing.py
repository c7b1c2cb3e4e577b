"""Looking at the shards of a run when it is planned: a few in this process, many on the job's workers."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from capfilt.config import Cluster
from capfilt.errors import FailedUnitsError, PlanningError, StoppedError, WorkerError
from capfilt.planning import index_here
from capfilt.progress import Progress
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.runs.journal import Journal
from capfilt.runs.stop import Stop
from workers.events import Event, State
from workers.index_worker import IndexWorker
from workers.pool import run_units

FEW_SHARDS = 64  # shards that the driver indexes itself, since starting workers takes some seconds


def index_shards(cluster: Cluster | None, stop: Stop, run: Run, shards: Sequence[Shard]) -> list[Shard]:
    """Index shards on workers: reading through all tars of a large run takes the network of all nodes.

    What is indexed is kept: if this ends early, another call goes on from there.

    Args:
        cluster: the workers; without them, and where there are few shards, this process does it.
        stop: once it is asked for, the shards in hand are finished, and no other begins.
        run: keeps the indexes.
        shards: with their ids and URLs alone.

    Raises:
        PlanningError: workers could not index some of the shards; all others are indexed.
        OSError: this process could not index one.
        StoppedError: it was asked to stop.
    """
    if not shards:
        return []
    trouble, indexed = _Trouble(), list[Shard]()
    if cluster is None or len(shards) < FEW_SHARDS:
        results = index_here(run, shards, stop)
    else:
        units = [Unit(shard, 0, 0) for shard in shards]
        results = run_units(partial(IndexWorker, run), units, cluster, stop=stop, listener=trouble)
    with closing(results), Progress(len(shards), 0, lambda: str(trouble.state), of="shards") as progress:
        try:
            for shard in results:
                indexed.append(shard)
                progress.add(1, "indexed")
        except (FailedUnitsError, WorkerError) as error:
            if not trouble.given_up:
                raise
            raise trouble.planning_error(error) from error
    if len(indexed) < len(shards):
        summary = f"{len(indexed)} of {len(shards)} shards are indexed, and no unit was begun"
        Journal(run.root).note("stop", summary=summary, failed=[])
        raise StoppedError(summary)
    return indexed


class _Trouble:
    """Hears which shards were given up, and sees how things are."""

    def __init__(self) -> None:
        self.given_up: list[Event] = []
        self.state = State()

    def hear(self, event: Event) -> None:
        if event.what == "given_up":
            self.given_up.append(event)

    def see(self, state: State) -> None:
        self.state = state

    def planning_error(self, error: FailedUnitsError | WorkerError) -> PlanningError:
        """Return what an error of the pool means for the plan."""
        failed = [f"{event.unit.shard.url}: {event.reason}" for event in self.given_up]
        passing = all(event.cause in ("store", "node") for event in self.given_up)
        return PlanningError(failed, passing, "" if isinstance(error, FailedUnitsError) else str(error))
