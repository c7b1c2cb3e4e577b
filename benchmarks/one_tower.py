"""What is one vision tower for both models worth? Captions and scores with one each and with a shared one, in turns.

    python benchmarks/one_tower.py --json one_tower.json          ViT-B/16 at 384, n = 1, 4, 10, on one thread
    python benchmarks/one_tower.py --device cuda --batch 128      on a GPU, in bfloat16

Both ways have the same weights, so that their scores must be equal, which is checked. Prints one JSON object: images
a second of both, and how many times as many the shared tower gives, with the middle half of the rounds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from machine import describe
from rounds import spread
from torch import Tensor
from versus_inputs import Folders, Inputs, make_inputs, sizes, write_models
from versus_sides import sampling

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device, FilterSettings
from capfilt.filters import Scores
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import Checkpoint, load
from capfilt.med.image_encoder import image_cache

PACKAGES = ("torch", "timm")
WAYS = ("apart", "shared")
Models = tuple[MEDCaptioner, MEDFilter]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    device = Device.model_validate({"kind": options.device, "dtype": options.dtype})
    config = sizes(options.model)
    inputs = make_inputs(config, options.batch)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = load_with_one_tower(write_models(config, Path(folder), inputs))
    result: dict[str, object] = {}
    for n in options.captions:
        result[f"n = {n}"] = compare(checkpoints, device, inputs, n, options.rounds)
        print(n, result[f"n = {n}"], flush=True)
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    result |= {"settings": settings, **describe(options.device, *PACKAGES)}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def load_with_one_tower(folders: Folders) -> tuple[Checkpoint, Checkpoint]:
    """Return captioner and filter with the captioner's vision tower in both."""
    captioner, judge = map(load, folders)
    judge.model.vision = captioner.model.vision
    return captioner, judge


def compare(
    checkpoints: tuple[Checkpoint, Checkpoint], device: Device, inputs: Inputs, n: int, rounds: int
) -> dict[str, object]:
    """Return the rates of both ways with n captions an image, and their ratio."""
    models: dict[str, Models] = {
        way: (
            MEDCaptioner("captioner", checkpoints[0], sampling(n), device, kept),
            MEDFilter("filter", checkpoints[1], FilterSettings(itc=False), device, kept),
        )
        for way, kept in zip(WAYS, (None, image_cache()), strict=True)
    }
    outcomes = [work(models[way], inputs.pixels, inputs.texts)[1] for way in WAYS]  # which warms up, too
    if outcomes[0] != outcomes[1]:
        raise SystemExit("the two ways differ in what they say of an image")
    seconds = [{way: work(models[way], inputs.pixels, inputs.texts)[0] for way in WAYS} for _ in range(rounds)]
    rates = {way: round(len(inputs.pixels) / median(each[way] for each in seconds), 4) for way in WAYS}
    ratios = [each["apart"] / each["shared"] for each in seconds]
    ratio, low, high = (round(value, 3) for value in spread(ratios))
    return {"images_per_s": rates, "ratio": ratio, "middle_half": [low, high]}


def work(models: Models, pixels: Tensor, texts: list[list[str]]) -> tuple[float, list[list[Scores]]]:
    """Return the seconds of captioning a batch and scoring its captions beside a text, and the scores."""
    captioner, judge = models
    start = time.perf_counter()
    captions = captioner.caption(pixels, range(len(pixels)))
    candidates = [[web[0], *(caption.text for caption in group)] for web, group in zip(texts, captions, strict=True)]
    scores = judge.score(pixels, candidates)
    return time.perf_counter() - start, scores


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["base", "large", "tiny"], default="base", help="size (base)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(cpu)")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="of products (auto)")
    parser.add_argument("--captions", type=int, nargs="+", default=[1, 4, 10], help="for each image (1 4 10)")
    for name, default, meaning in (
        ("batch", 4, "images in a forward pass"),
        ("threads", 1, "of the models on a CPU"),
        ("rounds", 5, "that count"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
