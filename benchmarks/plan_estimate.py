"""Does what capfilt plan says hold? Its estimate against the clock of the job itself.

    python benchmarks/plan_estimate.py                               small models on rendered images, about two minutes
    python benchmarks/plan_estimate.py --width 768 --depth 12 --image 384 --device cuda --samples 20000
    python benchmarks/plan_estimate.py --width 32 --depth 2 --image 32 --samples 60 --images 8 --batch 4

Renders a world of scenes with noisy texts, makes a captioner and a filter of random weights, lets capfilt plan make its
forecast from a small rehearsal, and then runs the bootstrap, with its export, on Ray. Both are processes of their own,
as a user starts them. Scores of random models mean nothing, so texts are kept by their length. Prints one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from machine import describe

from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.med.checkpoints import Checkpoint, save
from capfilt.med.model import MED
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.world.noise import NoiseRates
from capfilt.world.shards import World, write_world
from capfilt.world.vocabulary import vocabulary

SIZES = (
    ("width", 192, "of both halves; heads are 64 wide where that is possible"),
    ("depth", 6, "blocks of each half"),
    ("image", 96, "pixels of the models' input"),
    ("samples", 3000, "scenes"),
    ("shard", 500, "scenes of a shard"),
    ("batch", 32, "images of a forward pass"),
    ("images", 64, "of each repeat of the rehearsal"),
    ("workers", 1, "actors"),
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(options, Path(folder))
        started = time.perf_counter()
        plan = json.loads(_capfilt("plan", job, "--images", str(options.images), "--json"))
        planned = time.perf_counter() - started
        started = time.perf_counter()
        _capfilt("bootstrap", job)
        wall = time.perf_counter() - started
        found = compare(plan, wall, Path(folder))
    told = {"options": vars(options), **found, "plan_seconds": round(planned, 1)}
    print(json.dumps(told | describe(options.device, "torch", "ray"), indent=2))


def prepare(options: argparse.Namespace, folder: Path) -> Path:
    """Write shards, checkpoints and the config of a job, and return the path of the config."""
    write_world(folder / "web", World(0, "web", NoiseRates(), 2 * options.image), options.samples, options.shard)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *vocabulary()]) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(folder / "vocab.txt")
    heads = max(1, options.width // 64)
    sizes = MEDConfig(
        vision=VisionConfig(
            image_size=options.image, patch_size=16, width=options.width, depth=options.depth, heads=heads
        ),
        text=TextConfig(
            vocabulary=len(tokenizer),
            width=options.width,
            depth=options.depth,
            heads=heads,
            mlp_width=4 * options.width,
            positions=64,
        ),
    )
    for seed, name in enumerate(("captioner", "filter")):
        save(Checkpoint(MED(sizes).initialise(seed).eval(), tokenizer), folder / name)
    cuda = options.device == "cuda"
    job = {
        "input": [f"{folder}/web"],
        "run": f"{folder}/run",
        "captioner": f"{folder}/captioner",
        "filter": f"{folder}/filter",
        "batch_size": options.batch,
        "unit_size": options.shard,
        "decode_threads": options.decode_threads,
        "device": {"kind": options.device},
        "policy": {"web_itm": 0, "synthetic_itm": 0, "min_words": 5},  # random scores select nothing of use
        "cluster": {"workers": options.workers, "gpus_per_worker": float(cuda)},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def compare(plan: dict, wall: float, folder: Path) -> dict[str, object]:
    """Return what was foreseen and what came, of time, bytes and kept shares."""
    stats = json.loads(_capfilt("stats", folder / "run", "--json"))
    came = {
        "seconds": wall,
        "ledger_bytes": _size(folder / "run" / "ledger"),
        "clean_bytes": _size(folder / "run" / "clean"),
    }
    seconds = {side: 3600 * hours for side, hours in plan["hours"].items()}
    foreseen = {"seconds": seconds, "ledger_bytes": plan["ledger_bytes"], "clean_bytes": plan["clean_bytes"]}
    for source, rate in plan["kept"].items():
        if source in stats["sources"]:
            counts = stats["sources"][source]
            came[f"kept_{source}"] = counts["kept"] / counts["scored"]
            foreseen[f"kept_{source}"] = {"low": rate["low"], "likely": rate["share"], "high": rate["high"]}
    return {
        "bound": plan["pace"]["bound"],
        "compared": {
            name: {
                "came": _rounded(value),
                "foreseen": {side: _rounded(each) for side, each in foreseen[name].items()},
                "within": foreseen[name]["low"] <= value <= foreseen[name]["high"],
                "came_to_likely": round(value / foreseen[name]["likely"], 3) if foreseen[name]["likely"] else None,
            }
            for name, value in came.items()
        },
    }


def _capfilt(*arguments: object) -> str:
    command = [sys.executable, "-m", "capfilt.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _rounded(value: float) -> float:
    return round(value) if value >= 1000 else round(value, 3)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in SIZES:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text}; {default}")
    parser.add_argument("--decode-threads", type=int, default=2, help="of a worker; 2")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
