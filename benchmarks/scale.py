"""How do a run's start, driver, resume, statistics and check grow with its shards? Null models, tiny shards.

    python benchmarks/scale.py --shards 300 1000 3000 --json whole.json
    python benchmarks/scale.py --listed --shards 1000 10000 100000 --json listed.json

Without --listed, everything is done: shards are planned, two Ray actors take their units through capfilt_unit with
models that give canned texts, units are committed and folded, half of the ledger is put aside for the scan of a run
that is resumed and brought back, then come a start with nothing left, `capfilt stats` and `capfilt verify`.

With --listed the shards are planned and looked for in the ledger as ever, units pass through the same driver loop, but
actors return counts instead of working, and the ledger holds names without content, since a start only lists it: so
the driver alone is measured, for as many shards as the largest runs have.

Each figure is from a process of its own. Seconds are wall seconds; those of driver_cpu are of the processor.
Shards are hard links to a few files, so that they cost no space. Folders are removed at the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from machine import describe
from null_models import CountingWorker, build_null, write_inputs

from capfilt.config import BootstrapConfig, Cluster
from capfilt.ledger.remaining import Remaining
from capfilt.planning import plan_shards
from capfilt.runs import Run, start_run
from capfilt.shards import find_shards
from capfilt.tally import Tally
from pipelines import bootstrap
from workers.pool import run_units

NAMES = {"captioner": "c0ffee", "filter": "f117e4"}
PACKAGES = ("ray", "pyarrow", "duckdb", "torch")
SETTINGS = ("samples", "unit", "workers", "load")
Figures = dict[str, Any]
Stage = Callable[[Path, argparse.Namespace], Figures]


def job_config(folder: Path, options: argparse.Namespace) -> BootstrapConfig:
    """Return the job over a folder's shards."""
    return BootstrapConfig.model_validate(
        {
            "input": [str(folder / "in")],
            "run": str(folder / "run"),
            "captioner": "c",
            "filter": "f",
            "batch_size": options.unit,
            "unit_size": options.unit,
            "export": False,
            "device": {"dtype": "float32", "linear": "plain"},
            "cluster": {"workers": options.workers, "cpus_per_worker": 0.5},
        }
    )


def opened(folder: Path, options: argparse.Namespace) -> tuple[Run, BootstrapConfig]:
    """Open the run, and return its config too."""
    config = job_config(folder, options)
    return start_run(config, NAMES), config


def plan(folder: Path, options: argparse.Namespace) -> Figures:
    """Plan the run for the first time."""
    run, config = opened(folder, options)
    return {"samples": sum(shard.samples for shard in plan_shards(run, find_shards(config.input)))}


def work(folder: Path, options: argparse.Namespace) -> Figures:
    """Do the whole job on Ray."""
    with watched() as curve:
        bootstrap.run(job_config(folder, options), build_null, NAMES)
    return {"driver_cpu": time.process_time(), "curve": curve}


def schedule(folder: Path, options: argparse.Namespace) -> Figures:
    """Pass the units through the driver loop, with workers that return at once."""
    run, config = opened(folder, options)
    left, tally, units = Remaining(run, config, run.plan()), Tally(), 0
    begin, start = time.process_time(), time.perf_counter()
    with watched() as curve:
        for result in run_units(CountingWorker, left, Cluster(workers=options.workers, cpus_per_worker=0.5)):
            tally.add(result)
            left.count(result.unit)
            units += 1
    assert not left.unfinished
    seconds, cpu = time.perf_counter() - start, time.process_time() - begin
    return {"units": units, "loop_seconds": round(seconds, 2), "driver_cpu": round(cpu, 2), "curve": curve}


def scan(folder: Path, options: argparse.Namespace) -> Figures:
    """Find out what is left of the run, as its next start does."""
    run, config = opened(folder, options)
    left = Remaining(run, config, plan_shards(run, find_shards(config.input)))
    return {"left": left.total - left.done}


def start_again(folder: Path, options: argparse.Namespace) -> Figures:
    """Start a run again that is complete."""
    return {"summary": bootstrap.run(job_config(folder, options), build_null, NAMES, local=True)}


def ask(command: str) -> Stage:
    """Return a stage that runs a command on the run."""

    def stage(folder: Path, options: argparse.Namespace) -> Figures:
        subprocess.run(
            [sys.executable, "-m", "capfilt.cli", command, str(folder / "run")], check=True, stdout=subprocess.DEVNULL
        )
        return {"children_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)}

    stage.__name__ = command
    return stage


@contextmanager
def watched(seconds: float = 2.0) -> Iterator[list[tuple[float, int]]]:
    """Give the points of a curve, (seconds since the start, MiB resident), as they come in."""
    curve: list[tuple[float, int]] = []
    done, start = threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(seconds):
            curve.append((round(time.perf_counter() - start, 1), resident()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        done.set()
        thread.join()


def resident() -> int:
    """Return the MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def timed(stage: Stage, folder: Path, options: argparse.Namespace) -> Figures:
    """Return what a stage gives, its seconds, and the most MiB that its process had in memory."""
    start = time.perf_counter()
    figures = stage(folder, options)
    seconds = round(time.perf_counter() - start, 2)
    return {"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, **figures}


def measured(stage: Stage, folder: Path, options: argparse.Namespace) -> Figures:
    """Time a stage in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, stage, folder, options).result()


def half_away(folder: Path, ids: Sequence[str]) -> None:
    """Put the ledger of every other shard aside, or bring it back."""
    (ledger,) = (folder / "run/ledger").iterdir()
    aside = folder / "aside"
    aside.mkdir(exist_ok=True)
    there, back = (ledger, aside) if not any(aside.iterdir()) else (aside, ledger)
    for id_ in ids[::2]:
        for ending in ("json", "samples.parquet", "candidates.parquet"):
            (there / f"{id_}.{ending}").rename(back / f"{id_}.{ending}")


def fill(folder: Path, run: Run, ids: Sequence[str]) -> None:
    """Make a ledger of names, each a link to one of a few files."""
    ledger = Path(run.ledger)
    ledger.mkdir(parents=True)
    names = [f"{id_}.{ending}" for id_ in ids for ending in ("json", "samples.parquet", "candidates.parquet")]
    for number, name in enumerate(names):
        source = folder / f"content{number // 50_000}"
        source.touch()
        os.link(source, ledger / name)


def resumed(folder: Path, ids: Sequence[str], options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of the scan with half of the ledger, and of a start with all of it."""
    half_away(folder, ids)
    yield "scan of half", measured(scan, folder, options)
    half_away(folder, ids)
    yield "start again", measured(start_again, folder, options)


def whole(folder: Path, shards: int, options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of each stage of a run that does everything."""
    ids = write_inputs(folder, shards, options.samples)
    yield "plan", measured(plan, folder, options)
    yield "work", measured(work, folder, options)
    yield from resumed(folder, ids, options)
    for command in ("stats", "verify"):
        yield command, timed(ask(command), folder, options)


def listed(folder: Path, shards: int, options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of each stage of a run that is only planned, listed and scheduled."""
    ids = write_inputs(folder, shards, options.samples)
    yield "plan", measured(plan, folder, options)
    yield "schedule", measured(schedule, folder, options)
    fill(folder, opened(folder, options)[0], ids)
    yield from resumed(folder, ids, options)


def main() -> None:
    options = _options()
    rows = []
    for shards in options.shards:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for stage, figures in (listed if options.listed else whole)(Path(name), shards, options):
                rows.append({"shards": shards, "stage": stage, **figures})
                print(json.dumps(rows[-1]), flush=True)
    circumstances = describe("cpu", *PACKAGES) | {name: getattr(options, name) for name in SETTINGS}
    if options.json:
        options.json.write_text(json.dumps({"rows": rows} | circumstances, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 300, 1000], help="of each run (100 300 1000)")
    parser.add_argument("--samples", type=int, default=4, help="of a shard (4)")
    parser.add_argument("--unit", type=int, default=2, help="samples of a unit (2)")
    parser.add_argument("--workers", type=int, default=2, help="Ray actors (2)")
    parser.add_argument("--listed", action="store_true", help="measure the driver alone")
    parser.add_argument("--folder", help="for the shards and runs (the system's folder for temporary files)")
    parser.add_argument("--load", default="unknown", help="what else the machine does, for the record")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
