"""What does Ray cost? The same bootstrap, tar to committed ledger, in one process and on a Ray worker, in turns.

    python benchmarks/on_ray.py --json on_ray.json              ViT-B/16 at 384, 24 images, about ten minutes
    taskset -c 0 python benchmarks/on_ray.py                    one core for all of it: models, decoding, driver, Ray
    python benchmarks/on_ray.py --tiny --images 2000

The clock starts when the models are loaded and stops when the shard's commit record lies in the ledger. The idle share
is the part of that time in which no batch was in the models. Weights and images, JPEGs of 640x480, are random.
Prints one JSON object: images a second of both with the middle half of the rounds, and the ratio of neighbouring runs.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from machine import describe
from rounds import spread
from versus_inputs import Folders, make_inputs, sizes, write_models, write_shard

from capfilt import storage
from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.ledger.commits import read_commit
from capfilt.models import build_models, checkpoint_hashes
from capfilt.runs import load_run
from pipelines import bootstrap

PACKAGES = ("torch", "ray", "pyarrow", "pillow")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = sizes("tiny" if options.tiny else "base")
        inputs = make_inputs(config, options.images)
        models = write_models(config, folder / "models", inputs)
        write_shard(inputs, folder / "in.tar")
        rounds = [
            {mode: job(folder / f"{mode}{number}", models, options, local=mode == "process") for mode in MODES}
            for number in range(options.rounds)
        ]
    result = summary(rounds, options.images) | _circumstances(options)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


MODES = ("process", "ray")


def job(run: Path, models: Folders, options: argparse.Namespace, *, local: bool) -> dict[str, float]:
    """Return the seconds from the loaded models to the last commit, and those in which they were at work."""
    run.mkdir()
    config = BootstrapConfig.model_validate(
        {
            "input": [str(run.parent / "in.tar")],
            "run": str(run),
            "captioner": str(models.captioner),
            "filter": str(models.filter),
            "batch_size": options.batch,
            "unit_size": options.unit,
            "sampling": {"captions": options.captions},
            "decode_threads": 1,
            "export": False,
        }
    )
    bootstrap.run(config, partial(loaded, run), checkpoint_hashes(config), local=local)
    folder = load_run(str(run))
    (record,) = Path(folder.ledger).glob("*.json")
    working = read_commit(str(record)).seconds
    seconds = record.stat().st_mtime - float((run / "loaded").read_text())
    return {"seconds": seconds, "working": working["caption"] + working["score"]}


def loaded(run: Path, config: BootstrapConfig) -> CapFilt:
    """Build the models, and note when they were ready."""
    models = build_models(config)
    storage.publish(str(run / "loaded"), str(time.time()).encode())
    return models


def summary(rounds: list[dict[str, dict[str, float]]], images: int) -> dict[str, object]:
    """Return the rates and idle shares of both ways, and the ratio of Ray's rate to the other."""
    result: dict[str, object] = {}
    for mode in MODES:
        took = [found[mode] for found in rounds]
        result[mode] = {
            "images_per_s": _spread([images / one["seconds"] for one in took]),
            "idle_share": _spread([1 - one["working"] / one["seconds"] for one in took]),
        }
    ratios = [found["process"]["seconds"] / found["ray"]["seconds"] for found in rounds]
    return result | {"ray_to_process": _spread(ratios)}


def _spread(values: list[float]) -> dict[str, object]:
    middle, low, high = (round(value, 4) for value in spread(values))
    return {"median": middle, "middle_half": [low, high]}


def _circumstances(options: argparse.Namespace) -> dict[str, object]:
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    return {"settings": settings, **describe("cpu", *PACKAGES)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="models that cost next to nothing: Ray's cost alone")
    parser.add_argument("--images", type=int, default=24, help="of the shard (24)")
    parser.add_argument("--batch", type=int, default=4, help="images in a forward pass (4)")
    parser.add_argument("--unit", type=int, default=8, help="images between two commits (8)")
    parser.add_argument("--captions", type=int, default=1, help="for each image (1)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (3)")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
