"""How fast do images come to the models? The usual way against ours by size of the JPEG, then ours by threads.

    python benchmarks/feeding.py
    python benchmarks/feeding.py --images PHOTOGRAPHS --rounds 21 --threads 1 2 4 8 --json feeding.jsonl

The usual way is Pillow to decode and to resize (bicubic), and normalised float32 from the CPU. Ours is what an actor
does for a sample, with the hash of the file and its record: JPEGs whole, shrunk where twice the model's side is left
(the default), and shrunk to no less than the side. All take turns image by image in one thread, so that a busy machine
slows all of them. Then batches are made ahead by several threads, for a model that only sleeps, a quarter longer than
they should need: what it still waits is the idle share. Large pictures are mosaics of PHOTOGRAPHS, a folder of JPEGs;
without one they are noise whose spectrum falls like that of photographs.

Prints a JSON line for each case: images a second and the ratio to the usual way, or to the fewest threads, with its
middle half; and by how many of 255 levels pixels differ from those of the JPEG decoded whole.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import describe
from PIL import Image
from rounds import spread

from capfilt import images
from capfilt.batches import prepare
from capfilt.config import BootstrapConfig
from capfilt.prefetch import prefetch
from capfilt.records import Sample
from capfilt.stopwatch import Stopwatch

SIZES = ((512, 384), (640, 480), (1024, 768), (2048, 1536))
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
Form = Callable[[Sample], torch.Tensor]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with open(options.json, "w") if options.json else io.StringIO() as file:  # noqa: PTH123, a path or nothing
        for line in (*by_size(options), *by_threads(options)):
            text = json.dumps({**_circumstances(options), **line})
            print(text, flush=True)
            file.write(text + "\n")


def by_size(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield, for each size and form, images a second, the ratio to the usual way, and the difference in pixels."""
    forms = {"usual": partial(usual, options.side)}
    forms |= {name: partial(ours, prepared(options, m)) for name, m in (("whole", None), ("shrunk", 2), ("to side", 1))}
    for width, height in SIZES:
        samples = pictures(options, width, height)
        pixels = {name: torch.stack([form(sample) for sample in samples]).float() for name, form in forms.items()}
        seconds = take_turns(
            {name: partial(_through, form, samples) for name, form in forms.items()}, options.rounds, len(samples)
        )
        kib = round(median(len(sample.image) for sample in samples) / 1024)
        for name in forms:
            line = {"size": f"{width}x{height}", "kib": kib, "form": name, **_rates(seconds, name, "usual")}
            yield line | _difference(pixels[name], pixels["whole"])


def by_threads(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield, for each number of threads, images a second and the share of its time that a fast model waits."""
    samples, prepare_one = pictures(options, 640, 480) * options.batches, prepared(options, 2)
    batch = len(samples) // options.batches

    def drain(threads: int, model_seconds: float = 0.0) -> float:
        """Return the share of the time, from when the first batch is there, that is spent waiting."""
        clock, source = Stopwatch(), prefetch(samples, batch, prepare_one, threads)
        next(source)
        start = time.perf_counter()
        time.sleep(model_seconds)
        for _ in clock.each("wait", source):
            time.sleep(model_seconds)
        return clock.seconds["wait"] / (time.perf_counter() - start)

    drains = {str(threads): partial(drain, threads) for threads in options.threads}
    seconds = take_turns(drains, options.rounds, len(samples))
    for threads in options.threads:
        rates = _rates(seconds, str(threads), str(options.threads[0]))
        idle = [drain(threads, 1.25 * batch * median(seconds[str(threads)])) for _ in range(3)]
        yield {"size": "640x480", "threads": threads, **rates, "idle_share": round(median(idle), 4)}


def usual(side: int, sample: Sample) -> torch.Tensor:
    """Prepare an image as image processors in Python do, and return the 8-bit pixels that it comes from."""
    image = Image.open(io.BytesIO(sample.image)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    levels = np.array(image)  # (S, S, 3)
    torch.from_numpy(np.ascontiguousarray(((levels / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1)))
    return torch.from_numpy(levels).permute(2, 0, 1)


def ours(prepare_one: Callable, sample: Sample) -> torch.Tensor:
    return torch.from_numpy(prepare_one(sample).for_captioner)


def prepared(options: argparse.Namespace, margin: float | None) -> Callable:
    """Return what prepares a sample for two models of the side, as in a bootstrap."""
    config = BootstrapConfig(input=["-"], run="-", captioner="-", filter="-", images={"jpeg_margin": margin})
    return partial(prepare, (options.side, options.side), config)


def pictures(options: argparse.Namespace, width: int, height: int) -> list[Sample]:
    """Return JPEGs of a size with about as many bytes a pixel as photographs from cameras have."""
    rng, found = np.random.default_rng(0), []
    files = sorted(Path(options.images).glob("*.jpg")) if options.images else []
    for position in range(options.pictures):
        image = mosaic(rng.permutation(len(files)), files, width, height) if files else noise(rng, width, height)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        found.append(Sample(position, str(position), file.getvalue(), ""))
    return found


def noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return noise whose amplitude falls a little faster than its frequency grows; colours vary less than the light."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) ** 1.2
    frequency[0, 0] = np.inf  # no mean
    layers = [
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency, (height, width)) for _ in "0123"
    ]
    light, *colours = (layer / layer.std() for layer in layers)
    pixels = np.stack([128 + 40 * light + 5 * colour for colour in colours], axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def mosaic(order: np.ndarray, files: list[Path], width: int, height: int) -> Image.Image:
    """Return photographs side by side, each as large as it is, so that the detail is theirs."""
    whole, numbers, top = Image.new("RGB", (width, height)), iter(np.resize(order, width * height)), 0
    while top < height:
        left, tallest = 0, 0
        while left < width:
            with Image.open(files[next(numbers)]) as photograph:
                whole.paste(photograph, (left, top))
                left, tallest = left + photograph.width, max(tallest, photograph.height)
        top += tallest
    return whole


def take_turns(works: dict[str, Callable[[], object]], rounds: int, count: int) -> dict[str, list[float]]:
    """Return the seconds that each work takes for one of its images, round by round, after one that is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append((time.perf_counter() - start) / count)
    return seconds


def _through(form: Form, samples: list[Sample]) -> None:
    for sample in samples:
        form(sample)


def _rates(seconds: dict[str, list[float]], name: str, reference: str) -> dict[str, object]:
    middle, low, high = spread([r / s for r, s in zip(seconds[reference], seconds[name], strict=True)])
    return {
        "images_per_s": round(1 / median(seconds[name]), 1),
        "ratio": round(middle, 2),
        "middle_half": [round(low, 2), round(high, 2)],
    }


def _difference(pixels: torch.Tensor, whole: torch.Tensor) -> dict[str, float]:
    levels = (pixels - whole).abs().flatten().sort().values
    return {
        "levels_mean": round(levels.mean().item(), 2),
        "levels_p99": levels[int(0.99 * len(levels))].item(),
        "levels_max": levels[-1].item(),
    }


def _circumstances(options: argparse.Namespace) -> dict[str, object]:
    fast = ["simplejpeg"] if images.simplejpeg else []
    return {
        "side": options.side,
        "pictures": "mosaics of photographs" if options.images else "noise",
        "rounds": options.rounds,
        **describe("cpu", "torch", "pillow", *fast),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of JPEGs of which large pictures are put together")
    parser.add_argument("--side", type=int, default=384, help="of the models' input (384)")
    parser.add_argument("--rounds", type=int, default=15, help="that count (15)")
    parser.add_argument("--pictures", type=int, default=8, help="of a size, and images of a batch (8)")
    parser.add_argument("--batches", type=int, default=8, help="that threads make ahead in a round (8)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="that are tried (1 2 4)")
    parser.add_argument("--json", help="file for the lines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
