"""Samples set aside because, alone in their batch, they kill, hang or break their worker at every attempt.

Such a sample has a row of status "quarantined" in the ledger, and a record of what was observed. It holds its place in
its batch, so every other row is what it would be if the image could not be decoded.

That a sample is at fault is the one thing in a ledger that is observed, not computed: it also depends on the machine's
libraries, drivers and memory. So it is recorded before the sample's unit is committed, and a resumed run trusts the
records: from then on the sample is as fixed as the inputs, and all that follows has the same bytes. Two runs agree if
the sample behaves alike in both, whatever else was killed: a sample is only judged by `cluster.attempts` failures in a
row with nothing but itself in the models, and the words of its row hold no pid, host, time or number of attempts.
"""

import time

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger.commits import seal, unseal
from capfilt.ledger.tables import commit_path
from capfilt.records import Held, SampleRecord, Shard, Unit
from capfilt.runs import Run

QUARANTINED = "quarantined"  # the status of their rows


def quarantine(run: Run, unit: Unit, records: list[SampleRecord]) -> None:
    """Write a record for each sample that a unit holds; existing records stay as they are.

    Args:
        run: the run.
        unit: about to be committed. Until then nothing is recorded, so no sample is blamed for what another did.
        records: of all samples of the unit, by position.
    """
    for held in unit.held:
        path = quarantine_path(run, unit.shard, held.position)
        if storage.exists(path):
            continue
        record = records[held.position - unit.lo]
        values = {
            "shard": unit.shard.id,
            "url": unit.shard.url,
            "position": held.position,
            "key": record.key,
            "image_sha256": record.image_sha256,
            "error": held.error,
            "detail": held.detail,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        storage.publish(path, seal(values))


def quarantined(run: Run, shard: Shard) -> tuple[Held, ...]:
    """Return the samples of a shard that are on record, by position.

    Raises:
        RunError: a file among the records is not a quarantine record.
    """
    names = storage.list_files(storage.join(run.quarantine, shard.id))
    return tuple(_read(storage.join(run.quarantine, shard.id, name), name) for name in names)


def quarantined_shards(run: Run) -> set[str]:
    """Return the ids of the shards that have samples on record, by one listing."""
    return set(storage.list_folders(run.quarantine))


def release(run: Run, shard: Shard) -> None:
    """Forget all that is known of a shard with quarantined samples, so that it is bootstrapped as for the first time.

    The markers of its exports are removed after its ledger, so that a running export, which checks the ledger once it
    has written its marker, leaves no marker of the old state. The records go last: if a release is cut short, the shard
    comes out as it was.
    """
    storage.remove(commit_path(run, shard))
    for name in storage.list_files(run.parts(shard)):
        if name.endswith(".json"):  # before the tables that they vouch for
            storage.remove(storage.join(run.parts(shard), name))
    storage.remove_folder(run.parts(shard))
    clean = storage.join(run.root, "clean")
    for name in storage.list_folders(clean):
        storage.remove(storage.join(clean, name, f"{shard.id}_stats.json"))
        storage.remove(storage.join(clean, name, "_SUCCESS"))
    storage.remove_folder(storage.join(run.quarantine, shard.id))


def quarantine_path(run: Run, shard: Shard, position: int) -> str:
    """Return the path of a sample's record."""
    return storage.join(run.quarantine, shard.id, f"{position:08d}.json")


def _read(path: str, name: str) -> Held:
    try:
        values = unseal(storage.read_bytes(path))
        held = Held(values["position"], values["error"], values["detail"])
        if name != f"{held.position:08d}.json":
            raise ValueError(f"it is of position {held.position}")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is not a quarantine record ({error!r}); run again with --retry-quarantined") from None
    return held
