"""Does a model learn more from what CapFilt keeps? BLIP's first ablation, on the demo's rendered world.

    python benchmarks/ablation.py --work /tmp/ablation --json ablation.json

Runs the demo with more web scenes, and then pre-trains a MED from random weights on each of four cuts of its ledger:
the web texts as they are, those that the filter keeps, web texts and captions as they are, and what the filter keeps of
both. Nothing else differs: not the steps, the batch, the seed or the rate, and no human text is among them. Each MED
then captions scenes that no model was trained on, where it is known whether a caption is true, and scores their web
texts by ITC. The same command goes on where it stopped. Prints one JSON object.

Source: BLIP, arXiv 2201.12086, section 4.2 and table 1 (which fine-tunes before it measures; here nothing is).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from machine import describe

from capfilt.config import BootstrapConfig, Device, ExportConfig, Policy, Sampling
from capfilt.config.data import DataSettings
from capfilt.config.demo import DemoConfig
from capfilt.config.loading import load
from capfilt.config.training import PretrainConfig
from capfilt.evaluation.agreement import auc, auc_interval
from capfilt.ledger import read_candidates, read_samples
from capfilt.models import build_models, checkpoint_hashes
from capfilt.runs import load_run
from capfilt.world.facts import is_true
from capfilt.world.noise import NoiseRates
from capfilt.world.scenes import scene_from_metadata
from capfilt.world.shards import World, write_world
from pipelines import bootstrap, demo, export, pretrain

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
ALL = {"web_itm": 0.0, "synthetic_itm": 0.0, "drop_duplicates": False}
CUTS = {
    "web": {"mix": "web_only", **ALL},
    "web, filtered": {"mix": "web_only"},
    "web and captions": ALL,
    "web and captions, filtered": {},
}
PER_SHARD = 500
RESAMPLES = 1000


def main() -> None:
    options = _options()
    sizes = {"web_samples": options.web, "unseen_samples": 1, "retraining.steps": 2, "output": options.work}
    world = load(DemoConfig, options.demo, [f"{key}={value}" for key, value in sizes.items()])
    demo.run(world, print)
    test = options.work / "test"
    if not test.exists():
        scenes = World(world.seed, "test", NoiseRates(), world.model.image_size)
        write_world(test, scenes, options.test, PER_SHARD)
    figures: dict[str, object] = {}
    for name, changes in CUTS.items():
        cut = name.replace(", ", "-").replace(" ", "-")
        policy = world.policy.model_copy(update={"name": cut, **changes})
        samples, texts, clean = write_cut(options.work, policy)
        checkpoint = pretrain.run(training(world, options.work / "med" / cut, clean, options.steps))
        figures[name] = {"images": samples, "texts": texts, **measure(world, options.work, cut, checkpoint)}
        print(name, figures[name], flush=True)
    settings = {key: value for key, value in vars(options).items() if key not in ("demo", "json", "work")}
    result = figures | {"settings": settings, **describe("cpu", "capfilt", "torch")}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def write_cut(work: Path, policy: Policy) -> tuple[int, int, str]:
    """Export a cut of the demo's run, and return its images and texts, and the folder of its shards."""
    config = ExportConfig(run=str(work / "runs" / "web"), policy=policy)
    print(export.run(config))
    clean = load_run(config.run).clean(config)
    shards = pq.read_table(f"{clean}/manifest.parquet").to_pylist()
    return sum(shard["samples"] for shard in shards), sum(shard["texts"] for shard in shards), clean


def training(world: DemoConfig, output: Path, clean: str, steps: int) -> PretrainConfig:
    """Return the job that pre-trains a MED on a cut as the demo pre-trains its first one."""
    return PretrainConfig(
        output=str(output),
        model=world.model.settings(str(Path(world.output) / "vocab.txt")),
        data=DataSettings(shards=[clean], in_memory=True),
        schedule=world.pretraining.model_copy(update={"steps": steps}),
        itm_warmup=world.itm_warmup,
        seed=world.seed,
        device=world.device,
    )


def measure(world: DemoConfig, work: Path, cut: str, checkpoint: str) -> dict[str, object]:
    """Return the share of a model's captions that are true, and how well its ITC tells true web texts from wrong."""
    config = BootstrapConfig(
        input=[str(work / "test")],
        run=str(work / "test-runs" / cut),
        captioner=checkpoint,
        filter=checkpoint,
        sampling=Sampling(repetition_penalty=1.0, top_p=0.5),
        batch_size=world.batch_size,
        export=False,
        device=Device(kind="cpu", dtype="float32"),
    )
    bootstrap.run(config, build_models, checkpoint_hashes(config), local=True)
    run = load_run(config.run)
    rows: list[dict] = []
    for shard in run.plan():
        samples = read_samples(run, shard)
        scenes = dict(zip(samples["position"].to_pylist(), samples["metadata"].to_pylist(), strict=True))
        for row in read_candidates(run, shard).to_pylist():
            scene = scene_from_metadata(scenes[row["position"]])
            rows.append({**row, "image": f"{shard.id} {row['position']}", "true": is_true(row["text"], scene)})
    captions = [row["true"] for row in rows if row["source"] == "synthetic"]
    web = [row for row in rows if row["source"] == "web"]
    scores, match = np.array([row["itc"] for row in web]), np.array([row["true"] for row in web])
    images = np.unique([row["image"] for row in web], return_inverse=True)[1]
    return {
        "captions": len(captions),
        "captions_true": round(float(np.mean(captions)), 4),
        "web_texts": len(web),
        "auc_itc": round(auc(scores, match), 4),
        "auc_itc_interval": [round(bound, 4) for bound in auc_interval(scores, match, images, RESAMPLES, 0)],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=DEMO, help="config of the demo (configs/demo.yaml)")
    parser.add_argument("--work", type=Path, required=True, help="folder for worlds, models and runs")
    parser.add_argument("--web", type=int, default=8000, help="web scenes (8000)")
    parser.add_argument("--test", type=int, default=2000, help="scenes to measure on (2000)")
    parser.add_argument("--steps", type=int, default=1400, help="of each pre-training (1400)")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
