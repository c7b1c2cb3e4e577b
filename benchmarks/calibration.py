"""Do control pairs tell what a threshold lets in? Holds `capfilt calibrate` against texts whose truth is known.

    python benchmarks/calibration.py DATA --filter runs/filter/checkpoint --work /tmp/look

DATA is a folder with `human/dev` (photographs with captions) and `web/alt_text.jsonl` (real alt texts). Photographs
become web shards, of which a known share carries the alt text of some other picture and the rest a caption of their
own. A bootstrap scores them with the filter that is given, without a captioner, and with control pairs; `capfilt
calibrate` then sees nothing of the truth. Reports for each false-accept rate asked for which threshold is proposed,
what it lets in of the controls and of the texts that are really wrong, how far it is from the best threshold for that
rate, and what share of the kept texts is wrong, as estimated and in truth. Prints one JSON object with the figures, the
machine, versions and date.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import describe
from numpy.typing import NDArray
from torch import Tensor

from capfilt.bootstrap import CapFilt
from capfilt.calibrate import calibrate
from capfilt.calibrate.curves import Rate
from capfilt.config import BootstrapConfig
from capfilt.evaluation.agreement import auc
from capfilt.filters.med import MEDFilter
from capfilt.ledger import read_candidates, read_samples
from capfilt.med.checkpoints import checkpoint_hash, load, require
from capfilt.query import open_run
from capfilt.records import Caption
from capfilt.runs import load_run
from capfilt.shards import write_tar
from capfilt.turns import UNSHARED, Turn
from pipelines import bootstrap

PER_SHARD = 500
ERRORS = (0.01, 0.02, 0.05, 0.1, 0.2)

Floats = NDArray[np.float32]


class Silent:
    """A captioner that writes nothing, so that the filter alone is measured."""

    name, image_size = "none", 32

    def caption(self, pixels: Tensor, noise: Sequence[int], turn: Turn = UNSHARED) -> list[list[Caption]]:
        """Return no caption for any image."""
        return [[] for _ in pixels]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with human/dev and web/alt_text.jsonl")
    parser.add_argument("--filter", required=True, help="checkpoint of a filter")
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and run")
    parser.add_argument("--samples", type=int, default=1000, help="photographs that the filter has not seen (1000)")
    parser.add_argument("--noise", type=float, default=0.5, help="share of them whose text is an alt text (0.5)")
    parser.add_argument("--controls", type=float, default=0.5, help="share of them that get control pairs (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of which text goes to which photograph (0)")
    arguments = parser.parse_args()
    work = arguments.work / f"calibration-{arguments.seed}"
    write_shards(arguments, work / "web")
    run = score(arguments, work)
    scores, own = truth(run)
    figures = {
        "texts": len(own),
        "noise": {"true": round(1 - float(own.mean()), 4), "estimated_at_most": None},
        "auc": round(auc(scores.astype(np.float64), own), 4),
        "errors": [],
    }
    with open_run(run) as opened:
        for error in ERRORS:
            (found,) = calibrate(opened, error).sources
            figures["controls"] = found.controls
            figures["noise"]["estimated_at_most"] = round(found.noise_at_most, 4)
            figures["errors"].append({"wished": error} | (compare(found, error, scores, own) if found.proposed else {}))
    figures["best_balanced"] = best_balanced(scores, own)
    print(json.dumps(figures | describe("cpu", "capfilt", "torch", "pillow"), indent=2))


def write_shards(arguments: argparse.Namespace, folder: Path) -> None:
    """Write photographs of the official dev and test splits, with their own or with foreign texts."""
    rng, human = random.Random(arguments.seed), arguments.data / "human/dev"
    pictures = [line for line in read_lines(human / "captions.jsonl") if line["official_split"] in ("dev", "test")]
    alt_texts = [line["text"] for line in read_lines(arguments.data / "web/alt_text.jsonl")]
    members = []
    for n, picture in enumerate(rng.sample(pictures, min(arguments.samples, len(pictures)))):
        own = rng.random() >= arguments.noise
        text = rng.choice(picture["captions"] if own else alt_texts)
        image = (human / picture["image"]).read_bytes()
        key = f"{n // PER_SHARD:05d}{n % PER_SHARD:04d}"
        members += [(f"{key}.jpg", image), (f"{key}.json", json.dumps({"own": own}).encode())]
        members.append((f"{key}.txt", text.encode()))
    folder.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, len(members), 3 * PER_SHARD)):
        write_tar(folder / f"{shard:05d}.tar", members[start : start + 3 * PER_SHARD])


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def score(arguments: argparse.Namespace, work: Path) -> str:
    """Bootstrap the shards, and return the run's folder."""
    config = BootstrapConfig.model_validate(
        {
            "input": [str(work / "web")],
            "run": str(work / "run"),
            "captioner": "none",
            "filter": arguments.filter,
            "controls": {"share": arguments.controls},
            "export": False,
        }
    )
    hashes = {"captioner": Silent.name, "filter": checkpoint_hash(Path(arguments.filter))}

    def build(config: BootstrapConfig) -> CapFilt:
        judge = require(load(Path(config.filter)), "filter", config.filter)
        return CapFilt(Silent(), MEDFilter(hashes["filter"], judge, config.scoring, config.device))

    bootstrap.run(config, build, hashes, local=True)
    return config.run


def truth(run: str) -> tuple[Floats, NDArray[np.bool_]]:
    """Return P(match) of each web text, and whether it is the picture's own."""
    folder, scores, own = load_run(run), [], []
    for shard in folder.plan():
        known = {row["position"]: json.loads(row["metadata"])["own"] for row in read_samples(folder, shard).to_pylist()}
        for row in read_candidates(folder, shard).to_pylist():
            if row["source"] == "web":
                scores.append(row["itm"])
                own.append(known[row["position"]])
    return np.array(scores, np.float32), np.array(own)


def compare(found, error: float, scores: Floats, own: NDArray[np.bool_]) -> dict[str, object]:
    """Return what the proposed threshold comes to by the controls and in truth, and the best one for the same rate."""
    point = found.proposed
    kept = scores >= np.float32(point.threshold)
    wrong = Rate(int((kept & ~own).sum()), int((~own).sum()))
    best = float(np.quantile(scores[~own], 1 - error))
    return {
        "threshold": point.threshold,
        "met_from": found.least,
        "met_to": found.most,
        "false_accepts_of_controls": round(point.false_accepts.share, 4),
        "false_accepts_in_truth": {name: round(getattr(wrong, name), 4) for name in ("share", "low", "high")},
        "best_threshold": round(best, 4),
        "own_kept": round(float(kept[own].mean()), 4),
        "own_kept_at_best": round(float((scores[own] > best).mean()), 4),
        "wrong_of_kept": {
            "estimated_at_most": round(point.wrong_at_most, 4),
            "true": round(float((~own)[kept].mean()), 4) if kept.any() else None,
        },
    }


def best_balanced(scores: Floats, own: NDArray[np.bool_]) -> dict[str, float]:
    """Return the threshold at which the mean of true accepts and true rejects is largest."""
    thresholds = np.unique(scores)
    accuracy = [((scores[own] >= t).mean() + (scores[~own] < t).mean()) / 2 for t in thresholds]
    place = int(np.argmax(accuracy))
    return {"threshold": round(float(thresholds[place]), 4), "balanced_accuracy": round(float(accuracy[place]), 4)}


if __name__ == "__main__":
    main()
