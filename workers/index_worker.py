"""The body of an actor that indexes shards. It holds no logic of its own."""

from capfilt.errors import ShardError
from capfilt.indexing import index_shard
from capfilt.records import Shard, Unit
from capfilt.retries import may_pass
from capfilt.runs import Run


class IndexWorker:
    """Indexes shards by index_shard, given their ids and URLs."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def run(self, unit: Unit) -> Shard:
        """Index the unit's shard.

        Raises:
            ShardError: its file cannot be read, or the run folder not written, and a retry would not help.
            OSError: the same, but a retry may help.
        """
        try:
            return index_shard(self._run, unit.shard.id, unit.shard.url)
        except OSError as error:
            if may_pass(error):
                raise
            raise ShardError(str(error)) from error
