"""The body of an actor that indexes shards. It holds no logic of its own."""

from capfilt.indexing import index_shard
from capfilt.records import Shard, Unit
from capfilt.runs import Run


class IndexWorker:
    """Takes files of which nothing but their ids and URLs are known through index_shard."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def run(self, unit: Unit) -> Shard:
        """Index the unit's shard."""
        return index_shard(self._run, unit.shard.id, unit.shard.url)
