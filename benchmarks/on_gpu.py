"""How many images a second does a GPU bootstrap, from tar to committed ledger?

    python benchmarks/on_gpu.py --json on_gpu.json                       ViT-B/16 at 384, all cases of the options
    python benchmarks/on_gpu.py --model large --modes process --captions 1 --batch 128
    python benchmarks/on_gpu.py --modes ray --captions 1 --batch 256 --kernels 1

Each case runs in two ways: in this process, where the worker of a job does as many units at once as on Ray, and as a
job on a Ray cluster of this machine. JPEGs of 640x480 are read, decoded, captioned and scored, and rows are committed.
Weights are random, and lively; captions take 20 tokens each. The clock starts when the models have seen their first
batch and stops when the last commit record lies in the ledger.

Reports images a second, the share of the time in which no batch was in the models, and the operations a second that
the images need, as a share of the GPU's fastest matrix product. With --kernels, it also reports the milliseconds of
each kernel of a batch of the first size, for each model by itself.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import median

import torch
from machine import describe
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from versus_inputs import Folders, Inputs, make_inputs, sizes, write_models, write_shard
from versus_sides import sampling
from versus_transformers import operations
from versus_work import matrix_rates

from capfilt import storage
from capfilt.bootstrap import Build, CapFilt
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig
from capfilt.filters.med import MEDFilter
from capfilt.ledger.commits import read_commit
from capfilt.med.checkpoints import Checkpoint, load
from capfilt.models import build_models, checkpoint_hashes
from capfilt.planning import plan_shards
from capfilt.runs import load_run, start_run
from capfilt.units import cut_units
from pipelines import bootstrap
from workers.bootstrap_worker import BootstrapWorker
from workers.slots import units_in_hand

PACKAGES = ("torch", "triton", "ray", "pyarrow", "pillow")
SHARDS = 3
NAMES = {"captioner": "captioner", "filter": "filter"}
RECORDED = 4  # calls after which all steps of a batch have been recorded
TOLD, NAME = 20, 100  # kernels of a batch, and letters of their names


def main() -> None:
    options = _options()
    config = sizes(options.model)
    inputs = make_inputs(config, options.distinct)
    found: dict[str, object] = {"options": vars(options), **describe(options.device, *PACKAGES)}
    rates = matrix_rates(config, options.device, ["bfloat16"])["bfloat16"]
    peak = max(rates.values())
    found["matrix_rates"] = rates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = write_models(config, Path(options.models or folder, options.model), inputs)
        (folder / "in").mkdir()
        many = again_and_again(inputs, options.images // SHARDS)
        for number in range(SHARDS):
            write_shard(many, folder / f"in/{number:05d}.tar")
        for mode, n, batch in itertools.product(options.modes, options.captions, options.batch):
            rounds = []
            for number in range(options.rounds):
                run = folder / f"{mode}-{n}-{batch}-{number}"
                rounds.append((in_process if mode == "process" else on_ray)(settings(run, models, n, batch, options)))
            needed = sum(operations(f"both-{n}", config, texts) for texts in inputs.texts) / len(inputs.texts)
            name = f"{mode}, n = {n}, batches of {batch}"
            found[name] = told = summary(rounds, needed, peak)
            print(f"{name}: {told}", flush=True)
            save(found, options.json)
        for n in options.kernels:
            batch = options.batch[0]
            kernels = kernel_times(settings(folder / f"kernels-{n}", models, n, batch, options), inputs)
            found[f"kernels, n = {n}, a batch of {batch}, ms"] = kernels
            save(found, options.json)


def save(found: dict[str, object], path: Path | None) -> None:
    """Write what was found so far, if a path is given: a run that is cut short has not been for nothing."""
    if path:
        path.write_text(json.dumps(found, indent=1, default=str) + "\n")


def again_and_again(inputs: Inputs, images: int) -> Inputs:
    """Return inputs of `images` images, the distinct ones repeated in turn; their pixels are not repeated."""
    jpegs, texts = (list(itertools.islice(itertools.cycle(each), images)) for each in (inputs.jpegs, inputs.texts))
    return inputs._replace(jpegs=jpegs, texts=texts)


def settings(run: Path, models: Folders, n: int, batch: int, options: argparse.Namespace) -> BootstrapConfig:
    """Return a job of n captions an image, in batches of `batch` images."""
    gpu = options.device == "cuda"
    return BootstrapConfig.model_validate(
        {
            "input": [str(run.parent / "in/*.tar")],
            "run": str(run),
            "captioner": str(models.captioner),
            "filter": str(models.filter),
            "batch_size": batch,
            "unit_size": options.unit,
            "sampling": sampling(n).model_dump(),
            "device": {"kind": options.device},
            "scoring": {"itc": False},
            "decode_threads": options.decode_threads,
            "cluster": {
                "gpus_per_worker": 1 if gpu else 0,
                "cpus_per_worker": options.cpus,
                "decode_cpus": options.decode_cpus,
            },
            "export": False,
        }
    )


def in_process(config: BootstrapConfig) -> dict[str, float]:
    """Bootstrap in this process, and return its outcome."""
    run = start_run(config, NAMES)
    shards = sorted(map(str, Path(config.run).parent.glob("in/*.tar")))
    units = [unit for shard in plan_shards(run, shards) for unit in cut_units(shard, config)]
    worker = BootstrapWorker(partial(warm, Path(config.run), build=build), config, run)
    with ThreadPoolExecutor(units_in_hand(config.cluster)) as pool:
        list(pool.map(worker.run, units))
    return outcome(Path(config.run))


def on_ray(config: BootstrapConfig) -> dict[str, float]:
    """Bootstrap on a Ray cluster of this machine, and return its outcome."""
    bootstrap.run(config, partial(warm, Path(config.run)), checkpoint_hashes(config))
    return outcome(Path(config.run))


def build(config: BootstrapConfig) -> CapFilt:
    """Return the models of a config; their weights are loaded once."""
    captioner = MEDCaptioner(NAMES["captioner"], weights(config.captioner), config.sampling, config.device)
    return CapFilt(captioner, MEDFilter(NAMES["filter"], weights(config.filter), config.scoring, config.device))


@cache
def weights(folder: str) -> Checkpoint:
    """Return a checkpoint; it is loaded once, and stays on the device that the first model moved it to."""
    return load(Path(folder))


def warm(run: Path, config: BootstrapConfig, build: Build = build_models) -> CapFilt:
    """Build the models, have them see a batch, and note when they had."""
    models = build(config)
    batch = (torch.zeros((config.batch_size, 3, side, side), dtype=torch.uint8) for side in models.sides)
    captions = models.captioner.caption(next(batch), range(config.batch_size))
    models.filter.score(next(batch), [[caption.text for caption in group] for group in captions])
    storage.publish(str(run / "warm"), str(time.time()).encode())
    return models


def kernel_times(config: BootstrapConfig, inputs: Inputs) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each kernel of a batch, most first and those of the rest together, by model."""
    models, batch = build(config), config.batch_size
    many = again_and_again(inputs, batch)
    pixels = inputs.pixels.repeat(-(-batch // len(inputs.pixels)), 1, 1, 1)[:batch].to(config.device.kind)
    texts = [group[: config.sampling.captions + 1] for group in many.texts]
    calls: dict[str, Callable[[], object]] = {
        "captioner": partial(models.captioner.caption, pixels, range(batch)),
        "filter": partial(models.filter.score, pixels, texts),
    }
    return {name: trace(call) for name, call in calls.items()}


def trace(call: Callable[[], object]) -> dict[str, float]:
    """Return the milliseconds of each kernel of a call, most first and those of the rest together."""
    for _ in range(RECORDED):
        call()
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        call()
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for event in traced.events():
        if event.device_type == DeviceType.CPU:  # what the host does to launch them
            continue
        times[event.name[:NAME]] += event.time_range.elapsed_us() / 1000
    told = dict(times.most_common(TOLD))
    return {"all": times.total(), **told, "others": times.total() - sum(told.values())}


def outcome(run: Path) -> dict[str, float]:
    """Return the images of a run, its seconds, and those in which a batch was in the models."""
    records = list(Path(load_run(str(run)).ledger).glob("*.json"))
    commits = [read_commit(str(record)) for record in records]
    last = max(record.stat().st_mtime for record in records)
    return {
        "images": sum(sum(commit.statuses.values()) for commit in commits),
        "seconds": last - float((run / "warm").read_text()),
        "working": sum(commit.seconds["caption"] + commit.seconds["score"] for commit in commits),
    }


def summary(rounds: list[dict[str, float]], needed: float, peak: float) -> dict[str, object]:
    """Return the median rate with all of them, the idle share, and the share of the matrix peak."""
    rates = [one["images"] / one["seconds"] for one in rounds]
    return {
        "images_per_second": round(median(rates), 1),
        "of_rounds": [round(rate, 1) for rate in rates],
        "idle_share": round(median(1 - one["working"] / one["seconds"] for one in rounds), 4),
        "share_of_matrix_peak": round(median(rates) * needed / peak, 4),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["base", "large", "tiny"], default="base", help="size (base)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="of the models (cuda)")
    parser.add_argument("--captions", type=int, nargs="+", default=[1, 4, 10], help="for each image (1 4 10)")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 256, 512], help="images (128 256 512)")
    parser.add_argument(
        "--modes", nargs="+", choices=["process", "ray"], default=["process", "ray"], help="ways (both)"
    )
    parser.add_argument("--kernels", type=int, nargs="+", default=[], help="captions of a batch that is traced (none)")
    for name, default, meaning in (
        ("images", 9216, "of all shards"),
        ("distinct", 256, "images that are not alike"),
        ("unit", 1536, "images between two commits"),
        ("decode-threads", 4, "for each unit in hand"),
        ("cpus", 1, "of the worker, on Ray"),
        ("decode-cpus", 12, "of the processes that decode, on Ray; 0: the worker decodes"),
        ("rounds", 2, "that each case runs"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--models", type=Path, help="folder for the models, which a later run then finds")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
