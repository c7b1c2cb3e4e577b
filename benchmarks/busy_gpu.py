"""Does the host's own work keep a GPU waiting?

    python benchmarks/busy_gpu.py --json busy_gpu.json

A bootstrap through the worker's own class, with one unit in hand and with as many as on Ray: tars are read,
images decoded, captions turned from tokens into texts and texts into tokens, rows put into the ledger. Only the
arithmetic is a stand-in: a device that takes --captioner and --filter milliseconds an image (by default what an
H200 would take at 60 % of its roofline, ViT-B at 384 pixels), one thing at a time, while the host goes on, as
it does while it waits for a GPU. A batch is launched piece by piece, by as many calls of torch as go to a GPU, each of
which releases Python's lock and has to take it again. Images are tiny: feeding.py measures what decoding costs.

Reports images a second, the share of the time in which the device was idle, and the CPU time of an image, of all
threads together, including the preparation of the tiny images.
"""

import argparse
import itertools
import json
import random
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import describe
from null_models import write_inputs
from torch import Tensor

from capfilt.bootstrap import CapFilt
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig, Cluster, Device, FilterSettings, Sampling
from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.decoding import Generated
from capfilt.med.model import MED
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.med.unpadded import UnpaddedTexts
from capfilt.planning import plan_shards
from capfilt.records import Unit
from capfilt.runs import start_run
from capfilt.units import cut_units
from workers.bootstrap_worker import BootstrapWorker
from workers.slots import units_in_hand

WORDS = 30_000  # of the vocabulary
ON_A_GPU = Cluster(gpus_per_worker=1)
MADE_UP = 5_000  # captions that it draws from
CAPTION = (6, 14)  # tokens of each, least and most
# How often the host waits for the GPU in a batch, and calls of torch before each wait. The captioner waits after a
# caption's first token and then after every four; the filter's calls are the copies that say where each text lies, in
# addition to those that it makes here as well.
CAPTIONER_WAITS, CAPTIONER_CALLS = 5, 10
FILTER_WAITS, FILTER_CALLS = 1, 60


class StandIn:
    """A device that takes its time for the pieces of a batch, one piece after the other."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.seconds = 0.0  # at work

    def work(self, seconds: float, waits: int, calls: int) -> None:
        """Return when that much work is done, in as many pieces as it is waited for, each launched by some calls."""
        scrap = torch.zeros(1)
        for _ in range(waits):
            for _ in range(calls):
                scrap.add_(1)
            with self._busy:
                start = time.perf_counter()
                time.sleep(seconds / waits)
                self.seconds += time.perf_counter() - start


def unseen(pixels: Tensor) -> Tensor:
    """Return tokens (B, 1, 1) of pixels (B, 3, S, S), which nobody reads: the stand-in's time includes encoding."""
    return pixels[:, :1, 0, 0, None]


class Captioner(MEDCaptioner):
    """Writes made-up captions."""

    def __init__(self, checkpoint: Checkpoint, settings: Sampling, device: StandIn, seconds: float) -> None:
        super().__init__("c0ffee", checkpoint, settings, Device(dtype="float32", linear="plain"))
        self._device, self._seconds, self._image_encoder, draw = device, seconds, unseen, random.Random(0)
        self._known = torch.tensor([self._made_up(draw) for _ in range(MADE_UP)])  # (MADE_UP, T)

    def _write(self, image: Tensor, numbers: Tensor) -> Generated:
        self._device.work(self._seconds * len(image), CAPTIONER_WAITS, CAPTIONER_CALLS)
        rows = (numbers.flatten(0, 1)[:, 0] * len(self._known)).long()  # (B * n,)
        return Generated(self._known[rows], torch.full((len(rows),), -9.5))

    def _made_up(self, draw: random.Random) -> list[int]:
        words = [draw.randrange(len(SPECIAL), len(SPECIAL) + 2000) for _ in range(draw.randint(*CAPTION))]
        row = [*self.prompt, *words, self.tokenizer.end][: self.settings.max_length]
        return row + [self.tokenizer.pad] * (self.settings.max_length - len(row))


class Filter(MEDFilter):
    """Finds that every text fits."""

    def __init__(self, checkpoint: Checkpoint, device: StandIn, seconds: float) -> None:
        super().__init__("f117e4", checkpoint, FilterSettings(), Device(dtype="float32", linear="plain"))
        self._device, self._seconds, self._image_encoder = device, seconds, unseen

    def _project(self, image: Tensor) -> Any:
        return image

    def _judge(self, seen: Any, texts: UnpaddedTexts) -> Tensor:
        self._device.work(self._seconds * len(seen), FILTER_WAITS, FILTER_CALLS)
        return torch.zeros(len(texts.starts), 2)


def make_checkpoint(folder: Path) -> Checkpoint:
    """Return a model that is never asked, and a tokenizer of made-up words."""
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *(f"w{number}" for number in range(WORDS))]) + "\n")
    tokenizer = Tokenizer(folder / "vocab.txt")
    vision = VisionConfig(image_size=8, patch_size=8, width=8, depth=1, heads=1)
    text = TextConfig(vocabulary=len(tokenizer), width=8, depth=1, heads=1, mlp_width=8, positions=40)
    return Checkpoint(MED(MEDConfig(vision=vision, text=text, projection=8)), tokenizer)


def once(folder: Path, captions: int, in_hand: int, options: argparse.Namespace) -> dict[str, float]:
    """Bootstrap all shards, in_hand units at once; return images a second, the idle share and the CPU time."""
    device, checkpoint = StandIn(), make_checkpoint(folder)
    ids = write_inputs(folder, options.shards, options.unit)
    config = BootstrapConfig(
        input=[str(folder / f"in/{id_}.tar") for id_ in ids],
        run=str(folder / "run"),
        captioner="captioner",
        filter="filter",
        batch_size=options.batch,
        unit_size=options.unit,
        sampling=Sampling(captions=captions),
        device=Device(kind="cuda"),  # the worker shares its models as on one
        cluster=ON_A_GPU,
    )
    run = start_run(config, {"captioner": "c0ffee", "filter": "f117e4"})
    units = [unit for shard in plan_shards(run, config.input) for unit in cut_units(shard, config)]

    def build(config: BootstrapConfig) -> CapFilt:
        seconds = (options.captioner / 1000, options.filter / 1000)
        captioner = Captioner(checkpoint, config.sampling, device, seconds[0])
        return CapFilt(captioner, Filter(checkpoint, device, seconds[1]))

    return measure(BootstrapWorker(build, config, run), units, in_hand, device)


def measure(worker: BootstrapWorker, units: list[Unit], in_hand: int, device: StandIn) -> dict[str, float]:
    """Have the worker do all units, in_hand of them at once as on Ray, and return the same figures."""
    images = sum(unit.hi - unit.lo for unit in units)
    start, busy = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(in_hand) as pool:
        list(pool.map(worker.run, units))
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return {"images_per_second": images / seconds, "idle": 1 - device.seconds / seconds, "cpu_us": cpu / images * 1e6}


def main() -> None:
    options = _options()
    cases = list(itertools.product(options.captions, options.in_hand))
    rounds: dict[str, list[dict[str, float]]] = {_name(*case): [] for case in cases}
    for _, case in itertools.product(range(options.rounds), cases):
        with tempfile.TemporaryDirectory() as folder:
            rounds[_name(*case)].append(once(Path(folder), *case, options))
    most = 1000 / (options.captioner + options.filter)
    found = {}
    for name, each in rounds.items():
        found[name] = {key: statistics.median(one[key] for one in each) for key in each[0]}
        rate, idle, cpu = found[name].values()
        print(
            f"{name}: {rate:.0f} images/s of {most:.0f}, the device idle for {idle:.1%}, {cpu:.0f} us of CPU an image"
        )
    if options.json:
        circumstances = describe("cpu", "torch", "tokenizers", "numpy", "pyarrow")
        result = {"options": vars(options), **circumstances, "median": found, "rounds": rounds}
        options.json.write_text(json.dumps(result, indent=1, default=str) + "\n")


def _name(captions: int, in_hand: int) -> str:
    return f"n = {captions}, {in_hand} in hand"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captioner", type=float, default=0.423, help="milliseconds an image (0.423)")
    parser.add_argument("--filter", type=float, default=0.283, help="milliseconds an image (0.283)")
    parser.add_argument("--captions", type=int, nargs="+", default=[1, 4, 10], help="of an image (1 4 10)")
    usual = units_in_hand(ON_A_GPU)
    parser.add_argument("--in-hand", type=int, nargs="+", default=[1, usual], help=f"units at once (1 {usual})")
    parser.add_argument("--batch", type=int, default=128, help="images (128)")
    parser.add_argument("--unit", type=int, default=2048, help="images, all of a shard (2048)")
    parser.add_argument("--shards", type=int, default=9, help="of a bootstrap (9)")
    parser.add_argument("--rounds", type=int, default=3, help="of each case (3)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
