"""The body of an export actor. It holds no logic of its own."""

from capfilt.config import ExportConfig
from capfilt.export import Exported, export_shard
from capfilt.logs import bound
from capfilt.records import Unit
from capfilt.runs import Run


class ExportWorker:
    """Takes whole shards through export_shard."""

    def __init__(self, run: Run, config: ExportConfig) -> None:
        self._run, self._config = run, config

    def run(self, unit: Unit) -> Exported:
        """Write the clean shard of the unit's shard."""
        with bound(shard=unit.shard.id):
            return export_shard(self._run, unit.shard, self._config)
