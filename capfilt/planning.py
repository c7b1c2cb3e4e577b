"""The plan of a run: which shards it has, fixed when it starts, and which of them can be used."""

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from capfilt.background import map_in_threads
from capfilt.config import BootstrapConfig
from capfilt.display import counted, few, listed
from capfilt.errors import RunError
from capfilt.indexing import index_shard, indexed_shards, known_shard, shard_at
from capfilt.ledger import committed_units
from capfilt.records import PassedOver, Shard
from capfilt.runs import Run
from capfilt.runs.plans import shard_ids
from capfilt.runs.stop import Stop
from capfilt.shards import describe_damage
from capfilt.shards.find import canonical_urls
from capfilt.shards.samples import NO_SAMPLES
from capfilt.storage import absolute

READERS = 32  # threads that index shards; they wait for the store far more than they compute
TOLD = 24  # damaged shards that are named, of those left out and of those read in part
_LISTED = 10  # files that have come or gone that a message names

logger = logging.getLogger(__name__)

Index = Callable[[Run, Sequence[Shard]], Iterable[Shard]]
"""Looks at shards of which only ids and URLs are known, and yields them, complete, in any order."""


def index_here(run: Run, shards: Sequence[Shard], stop: Stop | None = None) -> Generator[Shard, None, None]:
    """Index shards in threads of this process; once a stop is asked for, those in hand finish and no other begins."""
    with ThreadPoolExecutor(READERS) as pool:
        for shard in pool.map(lambda shard: index_shard(run, shard.id, shard.url), shards):
            yield shard
            if stop is not None and stop.asked:
                return


def plan_shards(run: Run, found: Sequence[str], index: Index = index_here) -> list[Shard]:
    """Return the shards of a run: indexed at the first start, and the same ones ever after.

    A start that was cut short is continued: a shard that has an index is not walked through again. A shard
    that was damaged and of which nothing is committed is looked at again, since it may have been fetched again.

    Args:
        run: the run.
        found: the files that its inputs mean today.
        index: looks at the shards that are not known yet.

    Raises:
        RunError: files went since the run was planned. Those that came are left out, and a warning names them.
    """
    urls = [absolute(url) for url in found]  # workers have other current folders
    planned = run.plan() if run.has_plan() else []
    if planned:
        _check_same([shard.url for shard in planned], urls, run.root)
        listed, known = planned, _final(run, planned)
    else:
        ids = shard_ids(urls)
        listed = [Shard(id_, url, size=0, digest="", samples=0) for id_, url in zip(ids, urls, strict=True)]
        known = _indexed(run, listed)
    found_by_id = {shard.id: shard for shard in known}
    unknown = [shard for shard in listed if shard.id not in found_by_id]
    indexed = list(index(run, unknown))
    if others := passed_over(indexed):
        logger.warning("passed over: %s", tell_passed_over(others))
    found_by_id |= {shard.id: shard for shard in indexed}
    shards = [found_by_id[shard.id] for shard in listed]
    if shards != planned:
        run.write_plan(shards)
    return shards


def planned_shards(run: Run, planned: Sequence[Shard], urls: Sequence[str]) -> list[Shard]:
    """Return the shards of a run that is planned as plan_shards does, and write nothing. Errors are the same."""
    _check_same([shard.url for shard in planned], urls, run.root)
    final = {shard.id for shard in _final(run, planned)}
    return map_in_threads(lambda shard: shard if shard.id in final else shard_at(shard.id, shard.url), planned)


def shards_at(urls: Sequence[str]) -> list[Shard]:
    """Return what is in some files, as indexing.shard_at does."""
    return map_in_threads(lambda named: shard_at(*named), zip(shard_ids(urls), urls, strict=True))


def unusable(shard: Shard, config: BootstrapConfig) -> bool:
    """Return whether a shard is left out: damaged, unless what is readable of it is asked for."""
    readable = bool(shard.digest)
    return bool(shard.damage) and not (readable and config.damage == "keep-readable")


def remedy(shard: Shard) -> str:
    """Return what is wrong with a shard that is left out, and what to do."""
    choices = "keep-readable or skip-shard" if shard.digest else "skip-shard"
    if shard.damage.startswith(NO_SAMPLES):  # such as an archive of other files, which fetching makes no shard
        return f"{shard.url}: {shard.damage}; take it out of input, or set damage: {choices}"
    return f"{describe_damage(shard)}, or set damage: {choices}"


def named_damage(shard: Shard) -> str:
    """Return the URL of a damaged shard and what is wrong with it; some damage names the URL already."""
    return f"{shard.url}: {shard.damage.removeprefix(f'{shard.url}: ')}"


def warn_of_damage(what: str, shards: Sequence[Shard]) -> None:
    """Warn of what becomes of damaged shards, each with its reason; of the first TOLD if there are many."""
    for shard in shards[:TOLD]:
        logger.warning("%s: %s", what, named_damage(shard))
    if len(shards) > TOLD:
        logger.warning("%s: %d more; capfilt scan lists all", what, len(shards) - TOLD)


def passed_over(shards: Iterable[Shard]) -> dict[str, PassedOver]:
    """Return by suffix the members of all shards that are no part of a sample, the commonest first."""
    found: dict[str, PassedOver] = {}
    for shard in shards:
        for suffix, some in shard.passed_over.items():
            before = found.get(suffix, PassedOver(0, f"{shard.url.rpartition('/')[2]}: {some.example}"))
            found[suffix] = PassedOver(before.members + some.members, before.example)
    return dict(sorted(found.items(), key=lambda pair: -pair[1].members))


def tell_passed_over(found: Mapping[str, PassedOver]) -> str:
    """Return in a line what is no part of a sample: the commonest suffixes, with a member of each."""
    told = [f"{some.members:,} {suffix} ({some.example})" for suffix, some in found.items()]
    return f"members of tars that are no part of a sample: {', '.join(few(told))}"


def _indexed(run: Run, listed: Sequence[Shard]) -> list[Shard]:
    """Return the shards that a start which was cut short has indexed."""
    ids = indexed_shards(run)
    there = [shard for shard in listed if shard.id in ids]
    return [shard for shard in map_in_threads(lambda shard: known_shard(run, shard.id, shard.url), there) if shard]


def _final(run: Run, planned: Sequence[Shard]) -> list[Shard]:
    """Return the planned shards that need not be looked at again."""
    damaged = [shard for shard in planned if shard.damage]
    begun = map_in_threads(lambda shard: bool(committed_units(run, shard)), damaged)
    new = {shard.id for shard, as_it_was in zip(damaged, begun, strict=True) if not as_it_was}
    return [shard for shard in planned if shard.id not in new]


def _check_same(planned: Sequence[str], found: Sequence[str], root: str) -> None:
    """Check that the shards of a plan are all there; a warning names files that have come since, and are left out."""
    there, here = (dict(zip(canonical_urls(urls), urls, strict=True)) for urls in (planned, found))
    gone = sorted(url for place, url in there.items() if place not in here)
    new = sorted(url for place, url in here.items() if place not in there)
    changes = [f"gone: {url}" for url in gone] + [f"new: {url}" for url in new]
    told = "".join(f"\n  {line}" for line in listed(changes, _LISTED))
    if gone:
        raise RunError(
            f"{root}: the inputs are not those that the run was planned with; put them back, or start another run{told}"
        )
    if new:
        logger.warning(
            "%s: left out, since new after the run was planned: %s; for them, start another run%s",
            *(root, counted(len(new), "file"), told),
        )
