"""Do the units that a worker has in hand decode faster in a process each than in one?

    python benchmarks/decoders.py --json decoders.json

JPEGs of 640x480 are made ready for models of 384 pixels as a bootstrap does: for each unit some threads that make
batches ahead. All units are in one process, as when a worker decodes for itself, or each is in one of its own, as with
`cluster.decode_cpus`. Both ways take turns, on processes that stay. Reports images a second and their ratio, with its
middle half.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from feeding import take_turns
from machine import describe
from rounds import spread
from versus_inputs import photograph

from capfilt import images
from capfilt.batches import prepare
from capfilt.config import BootstrapConfig
from capfilt.prefetch import prefetch
from capfilt.records import Sample

SIDE, DISTINCT = 384, 16


def main() -> None:
    options = _options()
    rng = np.random.default_rng(0)
    jpegs = [photograph(rng) for _ in range(DISTINCT)]
    decode = partial(decode_unit, jpegs, options.images, options.batch, options.threads)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(options.units, context) as several:
        ways: dict[str, Callable[[], object]] = {
            "one process": partial(wait_for, one, [partial(together, decode, options.units)]),
            "a process each": partial(wait_for, several, [decode] * options.units),
        }
        seconds = take_turns(ways, options.rounds, options.images * options.units)
    rates = {name: [round(1 / each, 1) for each in rounds] for name, rounds in seconds.items()}
    ratios = [apart / joint for joint, apart in zip(*rates.values(), strict=True)]
    middle, low, high = (round(ratio, 2) for ratio in spread(ratios))
    for name, each in rates.items():
        print(f"{name}: {median(each):.0f} images/s")
    print(f"ratio {middle} ({low} to {high})")
    if options.json:
        fast = ["simplejpeg"] if images.simplejpeg else []
        found = {"options": vars(options), **describe("cpu", "torch", "pillow", "numpy", *fast)}
        found |= {"images_per_s": rates, "ratio": middle, "middle_half": [low, high]}
        options.json.write_text(json.dumps(found, indent=1, default=str) + "\n")


def decode_unit(jpegs: list[bytes], count: int, batch: int, threads: int) -> int:
    """Make `count` images ready, in batches that no model waits for, and return how many there were."""
    torch.set_num_threads(1)
    config = BootstrapConfig(input=["-"], run="-", captioner="-", filter="-")
    samples = (Sample(number, str(number), jpeg, "a text") for number, jpeg in enumerate(islice(cycle(jpegs), count)))
    return sum(map(len, prefetch(samples, batch, partial(prepare, (SIDE, SIDE), config), threads)))


def together(decode: Callable[[], int], units: int) -> int:
    """Decode units at once in the threads of this process, and return the images of all of them."""
    with ThreadPoolExecutor(units) as pool:
        return sum(future.result() for future in [pool.submit(decode) for _ in range(units)])


def wait_for(processes: Executor, works: list[Callable[[], int]]) -> None:
    """Submit works to processes, and wait for all of them."""
    for future in [processes.submit(work) for work in works]:
        future.result()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, meaning in (
        ("units", 3, "in hand"),
        ("threads", 4, "that decode for a unit"),
        ("images", 512, "of a unit"),
        ("batch", 128, "images"),
        ("rounds", 9, "that count"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
