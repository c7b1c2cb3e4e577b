"""Does the main job hold on real photographs and real alt texts? Runs its commands on them and marks the result.

    python benchmarks/real_input.py DATA --work /tmp/real --steps 800

DATA is a folder with `human/dev` (photographs with captions), `web/alt_text.jsonl` (real alt texts), `vocab/`
(BERT's vocabulary) and `peers/` (img2dataset shards of others). The photographs of the official train split become
human shards, on which small models are trained from random weights. Those of the dev and test splits become web
shards: a known share of them carries the alt text of some other picture, the rest one of its own captions. What the
ledger then says of each text is held against what is known. Prints one JSON object with the counts, the machine, the
versions and the date.
"""

import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml

from capfilt.ledger import read_candidates, read_samples
from capfilt.runs import load_run
from capfilt.shards import write_tar

NOISE = 0.5  # share of the web samples whose text is an alt text
PER_SHARD = 500
SMALL = {"image_size": 96, "patch_size": 16, "vision_width": 128, "vision_depth": 4, "vision_heads": 4}
SMALL |= {"text_width": 128, "text_depth": 3, "text_heads": 4, "positions": 64, "projection": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for shards, checkpoints and runs")
    parser.add_argument("--steps", type=int, default=800, help="of pre-training; half as many of each fine-tuning")
    parser.add_argument("--workers", type=int, default=2, help="Ray actors")
    arguments = parser.parse_args()
    started = time.monotonic()
    build_shards(arguments.data, arguments.work)
    train(arguments.data, arguments.work, arguments.steps)
    peer = arguments.data / "peers" / "torchtitan-cc12m-train-0000.tar"
    runs = {
        "photographs": bootstrap(arguments.work, "photographs", str(arguments.work / "web"), arguments.workers),
        "peer": bootstrap(arguments.work, "peer", str(peer), arguments.workers),
    }
    figures = {
        "steps": arguments.steps,
        "photographs": {**marks(runs["photographs"]), **counts(runs["photographs"])},
        "peer": counts(runs["peer"]),
        "seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {name: version(name) for name in ("capfilt", "torch", "ray", "pyarrow", "pillow")},
        "python": platform.python_version(),
        "date": str(datetime.date.today()),
    }
    print(json.dumps(figures, indent=2))


def build_shards(data: Path, work: Path) -> None:
    """Write human shards and web shards; the latter's JSON says whether the text is the picture's own."""
    rng = random.Random(0)
    pictures = [json.loads(line) for line in (data / "human/dev/captions.jsonl").read_text().splitlines()]
    alt_texts = [json.loads(line)["text"] for line in (data / "web/alt_text.jsonl").read_text().splitlines()]
    human, web = [], []
    for picture in pictures:
        image = (data / "human/dev" / picture["image"]).read_bytes()
        if picture["official_split"] not in ("dev", "test"):
            human.append((image, picture["captions"][0], {"captions": picture["captions"]}))
        elif rng.random() < NOISE:
            web.append((image, rng.choice(alt_texts), {"own": False}))
        else:
            web.append((image, rng.choice(picture["captions"]), {"own": True}))
    for name, samples in (("human", human), ("web", web)):
        (work / name).mkdir(parents=True, exist_ok=True)
        for shard, start in enumerate(range(0, len(samples), PER_SHARD)):
            write_tar(work / name / f"{shard:05d}.tar", members(shard, samples[start : start + PER_SHARD]))


def members(shard: int, samples: list[tuple[bytes, str, dict]]) -> Iterable[tuple[str, bytes]]:
    for position, (image, text, metadata) in enumerate(samples):
        key = f"{shard:05d}{position:04d}"
        yield f"{key}.jpg", image
        yield f"{key}.json", json.dumps(metadata).encode()
        yield f"{key}.txt", text.encode()


def train(data: Path, work: Path, steps: int) -> None:
    """Pre-train and fine-tune the small models with the commands that a user runs."""
    shards = {"shards": [str(work / "human")], "in_memory": True}
    schedule = {"steps": steps, "batch_size": 64, "texts_per_image": 2, "learning_rate": 1e-3, "beta2": 0.98}
    half = {**schedule, "steps": steps // 2, "learning_rate": 5e-4}
    vocabulary = str(data / "vocab/bert-base-uncased-vocab.txt")
    command(work, "pretrain", output=str(work / "pretrained"), model={**SMALL, "vocabulary": vocabulary}, data=shards,
            schedule=schedule, itm_warmup=0.3)  # fmt: skip
    for role in ("captioner", "filter"):
        command(work, "finetune", name=role, role=role, checkpoint=str(work / "pretrained/checkpoint"),
                output=str(work / role), data=shards, schedule=half)  # fmt: skip


def bootstrap(work: Path, name: str, shards: str, workers: int) -> str:
    run = str(work / "runs" / name)
    command(work, "bootstrap", name=name, input=[shards], run=run, captioner=str(work / "captioner/checkpoint"),
            filter=str(work / "filter/checkpoint"), unit_size=256, device={"kind": "cpu"},
            cluster={"workers": workers})  # fmt: skip
    subprocess.run([sys.executable, "-m", "capfilt.cli", "verify", run], check=True, stdout=sys.stderr)
    return run


def command(work: Path, job: str, name: str = "", **values: object) -> None:
    """Write a config and run its job; the progress of the command goes to stderr."""
    file = work / f"{job}{'-' if name else ''}{name}.yaml"
    file.write_text(yaml.safe_dump(values))
    subprocess.run([sys.executable, "-m", "capfilt.cli", job, str(file)], check=True, stdout=sys.stderr)


def counts(run: str) -> dict[str, object]:
    """Return what `capfilt stats --json` says, without the score quantiles."""
    done = subprocess.run(
        [sys.executable, "-m", "capfilt.cli", "stats", run, "--json"], check=True, capture_output=True, text=True
    )
    stats = json.loads(done.stdout)
    sources = {name: {k: source[k] for k in ("scored", "kept", "noise")} for name, source in stats["sources"].items()}
    return {"samples": stats["samples"], "statuses": stats["statuses"], "sources": sources}


def marks(run: str) -> dict[str, float]:
    """Return how well P(match) of the web texts tells own captions from alt texts."""
    folder = load_run(run)
    own, scores = [], []
    for shard in folder.plan():
        samples, candidates = read_samples(folder, shard), read_candidates(folder, shard)
        truth = {
            row["position"]: json.loads(row["metadata"])["own"]
            for row in samples.select(["position", "metadata"]).to_pylist()
        }
        web = candidates.filter(pc.equal(candidates["source"], "web"))
        own += [truth[position] for position in web["position"].to_pylist()]
        scores += web["itm"].to_pylist()
    kept, true = np.array(scores) >= 0.5, np.array(own)
    return {
        "web_texts": len(own),
        "own_captions": int(true.sum()),
        "own_kept": round(float(kept[true].mean()), 4),
        "alt_texts_dropped": round(float((~kept[~true]).mean()), 4),
        "auc": round(area(np.array(scores), true), 4),
    }


def area(scores: np.ndarray, true: np.ndarray) -> float:
    """Return the chance that a true pair scores above a false one, ties counted half."""
    values, ranks = np.unique(scores, return_inverse=True)
    per_value = np.bincount(ranks, minlength=len(values))
    middle = np.cumsum(per_value) - (per_value - 1) / 2  # mean rank of each value, from 1
    positives = int(true.sum())
    return float((middle[ranks][true].sum() - positives * (positives + 1) / 2) / (positives * (len(true) - positives)))


if __name__ == "__main__":
    main()
