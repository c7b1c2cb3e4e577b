"""Which shards are trained on and how many samples each holds: looked up at the start, and fixed for the run."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from capfilt.config.data import DataSettings
from capfilt.display import counted
from capfilt.errors import ConfigError, RunError, ShardError
from capfilt.indexing import shard_at
from capfilt.records import Shard
from capfilt.runs.plans import plan_bytes, read_plan
from capfilt.shards import ShardReader, describe_damage, find_shards, open_shard
from capfilt.shards.find import canonical_urls
from capfilt.shards.samples import NO_SAMPLES
from capfilt.storage import absolute, exists, join, publish

READERS = 8  # threads that read the shards' indexes
logger = logging.getLogger(__name__)

AGAIN = "remove the file and train again: the shards are indexed anew, and training resumes from the last state"


class Catalogue:
    """All shards of a mixture by number, and the shards of each source. No sample is in memory."""

    def __init__(self, settings: DataSettings, file: str | None = None) -> None:
        """Index every shard, or read the index that an earlier start of the run wrote to file.

        Indexing a remote tar reads all of it, which the file saves a resumed run and other ranks.

        Raises:
            ConfigError: there is no sample, or fewer shards than parts.
            RunError: shards were added or removed since the file was written.
            ShardError: a shard is damaged, and data.damage says fail.
        """
        self.settings = settings
        key = "data.sources.shards" if settings.sources else "data.shards"
        found = [[absolute(url) for url in find_shards(source.shards, key)] for source in settings.mixture()]
        urls = sorted({url for source in found for url in source})
        if file and exists(file):
            self.shards = _read(file, urls)
        else:
            _warn_of_unfinished(urls)
            with ThreadPoolExecutor(READERS) as pool:
                self.shards = list(pool.map(self._look, urls))
            if file:
                publish(file, plan_bytes(self.shards))
        numbers = {shard.url: number for number, shard in enumerate(self.shards) if shard.samples}
        self.sources = [[numbers[url] for url in source if url in numbers] for source in found]
        self._check()

    @property
    def samples(self) -> list[int]:
        """How many samples each shard holds."""
        return [shard.samples for shard in self.shards]

    @property
    def epoch_samples(self) -> float:
        """How many samples one epoch of every source holds, on average over the parts of a source."""
        sizes = [sum(self.shards[number].samples for number in numbers) for numbers in self.sources]
        return sum(size / source.parts for size, source in zip(sizes, self.settings.mixture(), strict=True))

    def epochs(self, source: int) -> list[list[int]]:
        """Return the shards of a source in each of its epochs; after the last the first comes again."""
        parts = self.settings.mixture()[source].parts
        return [self.sources[source][part::parts] for part in range(parts)]

    def open(self, number: int) -> ShardReader:
        """Open a shard.

        Raises:
            ShardError: the file has changed since it was indexed.
        """
        shard = self.shards[number]
        reader = open_shard(shard.url)
        if reader.digest != shard.digest:
            raise ShardError(f"{shard.url}: has changed since the run started; put it back, or train in another folder")
        return reader

    def _look(self, url: str) -> Shard:
        """Return what a shard holds. An empty one is no loss: a policy may keep nothing of a shard."""
        shard = shard_at(url, url)
        if shard.damage and self.settings.damage == "fail":
            raise ShardError(f"{describe_damage(shard)}, or set data.damage: keep-readable")
        if shard.damage or not shard.samples:
            logger.warning("%s: %d samples can be read: %s", url, shard.samples, shard.damage or NO_SAMPLES)
        return shard

    def _check(self) -> None:
        for source, shards in zip(self.settings.mixture(), self.sources, strict=True):
            if not shards:
                raise ConfigError(f"data: no sample in {', '.join(source.shards)}")
            if len(shards) < source.parts:
                raise ConfigError(
                    f"data.sources: {', '.join(source.shards)} has {counted(len(shards), 'shard')}, "
                    f"fewer than its {source.parts} parts; lower parts"
                )


def _warn_of_unfinished(urls: Sequence[str]) -> None:
    """Warn of clean shards whose export is not finished: shards that it writes later are not trained on."""
    for folder in sorted({url.rpartition("/")[0] for url in urls if not url.startswith("http")}):
        if exists(join(folder, "policy.yaml")) and not exists(join(folder, "_SUCCESS")):
            logger.warning(
                "%s: its export is not finished; this training uses only the shards that are there now", folder
            )


def _read(file: str, urls: Sequence[str]) -> list[Shard]:
    known, here = {*urls}, dict(zip(canonical_urls(urls), urls, strict=True))
    shards = read_plan(file, AGAIN)
    if any(shard.url not in known for shard in shards):  # they may be called by other paths today
        there = zip(canonical_urls([shard.url for shard in shards]), shards, strict=True)
        shards = [s if s.url in known else replace(s, url=here.get(place, s.url)) for place, s in there]
    gone, new = sorted({shard.url for shard in shards} - {*urls}), sorted({*urls} - {shard.url for shard in shards})
    if gone or new:
        some = [*(f"gone: {url}" for url in gone), *(f"new: {url}" for url in new)]
        raise RunError(
            f"{file}: the shards are not those that the run started with, {len(some)} differ; put them back, "
            f"or train in another folder: {', '.join(some[:5])}"
        )
    return shards
