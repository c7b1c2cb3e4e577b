"""Makes the ledger of a run that never ran, of any size: what is measured on it is reading, judging and counting.

    python benchmarks/made_up_ledger.py /tmp/big --candidates 10000000

A shard holds 10,000 samples, 2 % of which failed; the others have a web text and a synthetic one, and 2 % of these two
control texts more. Lengths, words and domains are drawn by Zipf's law, a twentieth of the web texts is Cyrillic, a
hundredth holds markup, synthetic texts repeat, web scores lie at both ends. Everything follows from the shard's number.
"""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt import storage
from capfilt.config import BootstrapConfig
from capfilt.controls import CAPTION, OWN
from capfilt.ledger import CANDIDATES, SAMPLES, commit_path, count_values, write_tables
from capfilt.ledger.commits import Commit, write_commit
from capfilt.records import CONTROL, Shard
from capfilt.runs import Run, start_run

SAMPLES_PER_SHARD = 10_000
VOCABULARY = 50_000
CONTROLS = 0.02  # of the scored samples
TEMPLATES = 5_000  # different synthetic texts of one shard, at most


def make(folder: str, candidates: int) -> Run:
    """Write a run with at least so many candidates, or go on with one; return it."""
    config = BootstrapConfig(input=["in"], run=folder, captioner="c", filter="f", export=False)
    run = start_run(config, {"captioner": "c0ffee", "filter": "f117e4"})
    count = -(-candidates // int(2 * 0.98 * SAMPLES_PER_SHARD))
    shards = [Shard(f"{n:05d}", f"in/{n:05d}.tar", 1, f"{n:06x}", SAMPLES_PER_SHARD) for n in range(count)]
    run.write_plan(shards)
    for number, shard in enumerate(shards):
        if not storage.exists(commit_path(run, shard)):
            _write(run, shard, np.random.default_rng(number))
    return run


def _write(run: Run, shard: Shard, rng: np.random.Generator) -> None:
    samples = _samples(shard, rng)
    candidates = _candidates(shard, np.asarray(samples["status"]) == "ok", rng)
    controls = _controls(candidates, rng)
    order = [("position", "ascending")]  # stable, so that controls stand behind the texts of their sample
    tables = {"samples": samples, "candidates": pa.concat_tables([candidates, controls]).sort_by(order)}
    commit = Commit(
        shard=shard.id,
        lo=0,
        hi=shard.samples,
        models=run.models,
        size=shard.size,
        digest=shard.digest,
        damage=shard.damage,
        statuses=count_values(tables["samples"]["status"]),
        text_statuses=count_values(tables["samples"]["text_status"]),
        candidates=count_values(tables["candidates"]["source"]),
        tokens=10 * candidates.num_rows // 2,
        seconds={"caption": 100.0, "score": 50.0},
        sha256=write_tables(run, run.parts(shard), tables),
        units=[f"{0:08d}-{shard.samples:08d}"],
    )
    write_commit(commit_path(run, shard), commit)


def _samples(shard: Shard, rng: np.random.Generator) -> pa.Table:
    count = shard.samples
    hashes = rng.bytes(32 * count).hex()
    domains = rng.zipf(1.3, count).clip(1, 100_000)
    columns = {
        "shard": pa.array([shard.id]).take(pa.array(np.zeros(count, int))),
        "position": np.arange(count),
        "key": [f"{shard.id}{n:04d}" for n in range(count)],
        "image_sha256": [hashes[64 * n : 64 * n + 64] for n in range(count)],
        "width": rng.choice([240, 256, 512, 800], count),
        "height": rng.choice([240, 256, 512, 800], count),
        "format": rng.choice(["JPEG", "PNG", "WEBP"], count, p=[0.9, 0.08, 0.02]),
        "url": [f"https://www.site{d}.example/images/{shard.id}/{n}.jpg" for n, d in enumerate(domains)],
        "metadata": [f'{{"similarity": 0.3, "hash": {n}, "punsafe": 0.01, "pwatermark": 0.2}}' for n in range(count)],
        "status": rng.choice(["ok", "undecodable", "too_large"], count, p=[0.98, 0.015, 0.005]),
        "text_status": np.full(count, "ok"),
        "error": np.full(count, ""),
    }
    return pa.table({name: pa.array(values).cast(SAMPLES.field(name).type) for name, values in columns.items()})


def _candidates(shard: Shard, scored: np.ndarray, rng: np.random.Generator) -> pa.Table:
    positions = np.repeat(np.flatnonzero(scored), 2)
    count = len(positions)
    web = np.arange(count) % 2 == 0
    texts = np.empty(count, object)
    texts[web] = _web_texts(int(web.sum()), rng)
    texts[~web] = _synthetic_texts(int((~web).sum()), rng)
    columns = {
        "shard": np.full(count, shard.id),
        "position": positions,
        "key": [f"{shard.id}{n:04d}" for n in positions],
        "source": np.where(web, "web", "synthetic"),
        "caption_index": np.zeros(count, np.int32),
        "text": texts,
        "captioner": np.where(web, None, "c0ffee"),
        "round": np.zeros(count, np.int32),
        "seed": [None if own else 7 for own in web],
        "tokens": [None if own else 10 for own in web],
        "logprob": [None if own else -12.5 for own in web],
        "itm": np.where(web, rng.beta(0.4, 0.6, count), rng.beta(2, 0.4, count)).astype(np.float32),
        "itc": rng.normal(0.3, 0.1, count).clip(-1, 1).astype(np.float32),
    }
    return pa.table(
        {name: pa.array(list(values)).cast(CANDIDATES.field(name).type) for name, values in columns.items()}
    )


def _controls(candidates: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return texts of others for a share of the samples, with low scores."""
    rows = np.flatnonzero(rng.random(candidates.num_rows // 2) < CONTROLS)
    chosen = pa.array(np.stack([2 * rows, 2 * rows + 1], axis=1).ravel())  # a web text and a synthetic one each
    controls = candidates.take(chosen)
    values = {
        "source": [CONTROL] * len(chosen),
        "caption_index": [OWN, CAPTION] * len(rows),
        "text": pc.take(candidates["text"], pc.subtract(candidates.num_rows - 1, pc.bit_wise_xor(chosen, 1))),
        "itm": rng.beta(0.4, 3, len(chosen)),
    }
    for name, column in values.items():
        place, kind = controls.schema.get_field_index(name), controls.schema.field(name).type
        controls = controls.set_column(place, name, column if name == "text" else pa.array(column).cast(kind))
    return controls


def _web_texts(count: int, rng: np.random.Generator) -> list[str]:
    lengths = rng.geometric(0.12, count).clip(1, 60)
    words = iter(rng.zipf(1.2, int(lengths.sum())).clip(1, VOCABULARY).tolist())
    texts = [" ".join(f"word{next(words)}" for _ in range(length)) for length in lengths.tolist()]
    for n in range(0, count, 20):
        texts[n] = f"Слово {texts[n].replace('word', 'слово')}"
    for n in range(7, count, 100):
        texts[n] = f"<b>{texts[n]}</b> &amp; more"
    return texts


def _synthetic_texts(count: int, rng: np.random.Generator) -> list[str]:
    things = rng.zipf(1.2, (TEMPLATES, 3)).clip(1, 2_000).tolist()
    templates = [f"a thing{a} with a thing{b} on a thing{c}" for a, b, c in things]
    return [templates[n] for n in rng.zipf(1.2, count).clip(1, TEMPLATES) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of the run")
    parser.add_argument("--candidates", type=int, default=10_000_000, help="of the ledger (10000000)")
    arguments = parser.parse_args()
    print(make(arguments.folder, arguments.candidates).root)


if __name__ == "__main__":
    main()
