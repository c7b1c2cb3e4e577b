"""Does the whole path hold on real photographs and real alt texts? Runs its commands on them and marks the result.

    python benchmarks/photographs.py DATA --work /tmp/look

DATA is a folder with `human/dev` (photographs with captions, and people's verdicts on pairs), `web/alt_text.jsonl`
(real alt texts), `vocab/` (BERT's vocabulary) and `peers/` (img2dataset shards of others). The photographs of the
official train split become human shards, on which a small MED is trained from random weights, and captioner and filter
from it (configs/photographs). Those of the dev and test splits become web shards: a known share of them carries the alt
text of some other picture, the rest one of its own captions. What the ledger then says of each text is held against
what is known, and `capfilt evaluate` measures the two models on the test split. Prints one JSON object with the
figures, the machine, the versions and the date.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml
from machine import describe

from capfilt.evaluation.agreement import auc
from capfilt.ledger import read_candidates, read_samples
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.runs import load_run
from capfilt.shards import write_tar

NOISE = 0.5  # share of the web samples whose text is an alt text
PER_SHARD = 500
CONFIGS = Path(__file__).parents[1] / "configs" / "photographs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the photographs and texts")
    parser.add_argument("--work", type=Path, required=True, help="folder for shards, checkpoints and runs")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of each config, for a quick look (1.0)")
    parser.add_argument("--workers", type=int, default=2, help="Ray actors (2)")
    arguments = parser.parse_args()
    started = time.monotonic()
    data, work = arguments.data.absolute(), arguments.work.absolute() / "photographs"
    build_shards(data, work)
    seconds = train(work, arguments.share)
    peer = data / "peers" / "torchtitan-cc12m-train-0000.tar"
    runs = {
        "photographs": bootstrap(work, "photographs", str(work / "web"), arguments.workers),
        "peer": bootstrap(work, "peer", str(peer), arguments.workers),
    }
    figures = {
        "photographs": {**marks(runs["photographs"]), **counts(runs["photographs"])},
        "peer": counts(runs["peer"]),
        "evaluation": evaluate(data, work),
        "training": {"share": arguments.share, "seconds": seconds},
        "seconds": round(time.monotonic() - started),
        **describe("cpu", "capfilt", "torch", "ray", "pyarrow", "pillow"),
    }
    print(json.dumps(figures, indent=2))


def build_shards(data: Path, work: Path) -> None:
    """Write human shards, web shards whose JSON says if the text is the picture's own, test split and vocabulary."""
    rng = random.Random(0)
    pictures = read_lines(data / "human/dev/captions.jsonl")
    alt_texts = [line["text"] for line in read_lines(data / "web/alt_text.jsonl")]
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
    test = [json.dumps(picture) for picture in pictures if picture["official_split"] == "test"]
    (work / "test.jsonl").write_text("\n".join(test) + "\n")
    texts = [text for _, _, metadata in human for text in metadata["captions"]]
    (work / "vocab.txt").write_text("\n".join(used_pieces(data / "vocab/bert-base-uncased-vocab.txt", texts)) + "\n")


def used_pieces(vocabulary: Path, texts: list[str]) -> list[str]:
    """Return the pieces of a vocabulary that some texts use, and single characters: a small language head."""
    tokenizer = Tokenizer(vocabulary)
    used = {piece for text in texts for piece in tokenizer.pieces(text)}
    return [
        word
        for number, word in enumerate(tokenizer.vocabulary)
        if number in used or word in SPECIAL or (len(word.removeprefix("##")) == 1 and word.isascii())
    ]


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def members(shard: int, samples: list[tuple[bytes, str, dict]]) -> Iterable[tuple[str, bytes]]:
    for position, (image, text, metadata) in enumerate(samples):
        key = f"{shard:05d}{position:04d}"
        yield f"{key}.jpg", image
        yield f"{key}.json", json.dumps(metadata).encode()
        yield f"{key}.txt", text.encode()


def train(work: Path, share: float) -> dict[str, int]:
    """Pre-train and fine-tune with the commands that a user runs, and return the seconds of each."""
    seconds = {}
    for name in ("pretrain", "finetune_captioner", "finetune_filter"):
        file = CONFIGS / f"{name}.yaml"
        steps = yaml.safe_load(file.read_text())["schedule"]["steps"]
        started = time.monotonic()
        capfilt(work.parent, name.partition("_")[0], str(file), "--set", f"schedule.steps={round(steps * share)}")
        seconds[name] = round(time.monotonic() - started)
    return seconds


def evaluate(data: Path, work: Path) -> dict[str, object]:
    """Measure both models on the official test split, and the filter against people and against alt texts."""
    images = str(data / "human/dev")
    test = {"annotations": str(work / "test.jsonl"), "images": images}
    judged = {"annotations": str(data / "human/dev/judgments.jsonl"), "images": images}
    alt_texts = {"foreign": str(data / "web/alt_text.jsonl")}
    figures = {}
    for name, role, values in (
        ("retrieval", "filter", {"data": test, "retrieval": {"top_k": 64}}),
        ("captioning", "captioner", {"data": test}),
        ("judgments", "filter", {"data": judged}),
        ("foreign_texts", "filter", {"data": test, "verdicts": alt_texts}),
    ):
        output = work / "evaluation" / f"{name}.json"
        checkpoint = str(work / role / "checkpoint")
        command(work, "evaluate", name, task=name, checkpoint=checkpoint, output=str(output), **values)
        figures[name] = json.loads(output.read_text())["figures"]
    return figures


def bootstrap(work: Path, name: str, shards: str, workers: int) -> str:
    run = str(work / "runs" / name)
    command(work, "bootstrap", name=name, input=[shards], run=run, captioner=str(work / "captioner/checkpoint"),
            filter=str(work / "filter/checkpoint"), unit_size=256, device={"kind": "cpu"},
            cluster={"workers": workers})  # fmt: skip
    capfilt(work, "verify", run)
    return run


def command(work: Path, job: str, name: str, **values: object) -> None:
    """Write a config and run its job."""
    file = work / f"{job}-{name}.yaml"
    file.write_text(yaml.safe_dump(values))
    capfilt(work, job, str(file))


def capfilt(folder: Path, *arguments: str) -> None:
    """Run a command in a folder; what it says goes to stderr."""
    subprocess.run([sys.executable, "-m", "capfilt.cli", *arguments], check=True, stdout=sys.stderr, cwd=folder)


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
        "auc": round(auc(np.array(scores), true), 4),
    }


if __name__ == "__main__":
    main()
