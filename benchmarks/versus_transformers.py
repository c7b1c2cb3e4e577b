"""How fast are captioner and filter against transformers' BLIP on the same weights, images, lengths and precision?

    python benchmarks/versus_transformers.py > versus.json                      ViT-B/16 at 384, about ten minutes
    python benchmarks/versus_transformers.py --batch 4 --cases 'both-*' --rounds 3 --documented 0
    python benchmarks/versus_transformers.py --device cuda --batch 128 --shard-images 512
    python benchmarks/versus_transformers.py --tiny

First both sides have to give the same: features, logits, log-probabilities of captions, P(match) in float32 to 1e-4,
and the same greedy captions. Then they take each case in turns, so that what else the machine does falls on both:

    caption-N   N captions of 20 new tokens for each image, as texts, from pixels in memory
    itm-K       P(match) of K texts of 5 to 20 tokens for each image
    both-N      N captions, then P(match) of a web text and of them
    shard-N     the same from a tar of JPEGs to rows in Parquet, reading and writing included

transformers is used as well as it can be: an image is encoded once, its captions come from one call, and its texts are
matched in one call against its states, padded to the longest. "As documented" matches one pair for each row instead.
Neither side gives the ITC cosine of a pair. Ratios are those of the median seconds of the rounds that both took part
in; the range beside them is the middle half of those rounds' own ratios. Operations are those that are needed, held
against the fastest matrix product of the machine. Tables go to stderr as they come, JSON to stdout.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import torch
import transformers
import versus_report as report
from machine import describe
from versus_equality import check, drift, spreads
from versus_inputs import Folders, Inputs, make_inputs, sizes, write_models, write_shard
from versus_sides import DOCUMENTED, NEW, Ours, Side, Theirs, sampling
from versus_work import captioner_work, filter_work, matrix_rates, profile_stages, subtract_stages

from capfilt.config import Device
from capfilt.config.sizes import MEDConfig
from capfilt.med.inference import on_device

CASES = ("caption-1", "both-1", "shard-1", "caption-4", "both-4", "shard-4", "caption-10", "both-10", "shard-10",
         "itm-1", "itm-4", "itm-11")  # fmt: skip
DTYPES = ("float32", "bfloat16")
PACKAGES = ("capfilt", "torch", "transformers", "timm", "pillow")
CHECKED = 2  # images that have to give the same on both sides


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    transformers.utils.logging.disable_progress_bar()
    config = sizes(options.model)
    inputs = make_inputs(config, max(options.batch, options.shard_images, options.drift_images, CHECKED))
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(config, Path(options.models or folder, options.model), inputs)
        found = run(options, config, inputs, models, Path(folder))
    print(json.dumps(found, indent=2, default=str))


def run(
    options: argparse.Namespace, config: MEDConfig, inputs: Inputs, models: Folders, folder: Path
) -> dict[str, object]:
    """Check, measure and profile, and return all that was found."""
    common = {"kind": options.device, "threads": torch.get_num_threads()}
    devices = [Device(dtype=dtype, **common) for dtype in DTYPES]
    ours, theirs = [Ours(models, device) for device in devices], [Theirs(models, device) for device in devices]
    few, some, sides = inputs.first(CHECKED), inputs.first(options.drift_images), [*ours, *theirs]
    drifting = [side for side in sides if side is not theirs[0]] if options.drift_images else []
    found = {"options": vars(options), **describe(options.device, *PACKAGES)}
    found["linear"] = {side.name: side.device.linear for side in ours}
    show(report.circumstances(found))
    found["differences"] = check(ours[0], theirs[0], few, options.tolerance)
    found["spread_of_log_odds"] = spreads(ours[0], few)
    show(report.equality(found))
    found["drift"] = {side.name: drift(theirs[0], side, some, options.batch) for side in drifting}
    show(report.drifts(found))
    found["matrix_rates"] = matrix_rates(config, options.device, DTYPES)
    show(report.products(found))
    found["cases"] = {}
    for name, case in measure_cases([*sides, theirs[0].as_documented()], options, config, inputs, folder):
        found["cases"][name] = case
        show(report.timed(name, case, found))
    found["profile"] = profiles([*ours, theirs[0]], options, config, inputs.first(options.batch))
    show(report.profiled(found))
    return found


def show(table: str) -> None:
    """Tell people at once: a run that is cut short has not been for nothing."""
    if table:
        print(table, end="\n\n", file=sys.stderr, flush=True)


def measure_cases(
    sides: list[Side], options: argparse.Namespace, config: MEDConfig, inputs: Inputs, folder: Path
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield seconds, ratios and needed operations of each case that is asked for."""
    shard = write_shard(inputs.first(options.shard_images), folder / "00000.tar")
    for case in CASES:
        if any(fnmatch(case, pattern) for pattern in options.cases):
            images = options.shard_images if case.startswith("shard") else options.batch
            matched = case.startswith(("itm", "both"))  # what the documentation shows in another way
            taking = [side for side in sides if matched or not side.name.endswith(DOCUMENTED)]
            seconds = measure(task(case, inputs, shard, folder, options.batch), taking, options)
            needed = sum(operations(case, config, texts) for texts in inputs.first(images).texts)
            ratios = report.compare(seconds)
            yield case, {"images": images, "operations": needed, "seconds": seconds, "ratios": ratios}


def task(case: str, inputs: Inputs, shard: Path, folder: Path, batch: int) -> Callable[[Side], object]:
    """Return what a case has a side do."""
    kind, count = case.split("-")
    n, some = int(count), inputs.first(batch)
    if kind == "caption":
        return lambda side: side.caption(some.pixels, n)
    if kind == "itm":
        return lambda side: side.score(some.pixels, [texts[:n] for texts in some.texts])
    if kind == "shard":
        runs = (folder / f"{case}-{number}" for number in itertools.count())
        return lambda side: side.shard(shard, n, batch, next(runs))

    def both(side: Side) -> object:
        captions = side.caption(some.pixels, n)
        return side.score(some.pixels, [[web[0], *group] for web, group in zip(some.texts, captions, strict=True)])

    return both


def measure(do: Callable[[Side], object], sides: list[Side], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each round by side. Each round begins with another one, so that none always comes first."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(-options.warmup, options.rounds):
        for place in range(len(sides)):
            side = sides[(number + place) % len(sides)]
            if side.name.endswith(DOCUMENTED) and not 0 <= number < options.documented:
                continue
            start = time.perf_counter()
            do(side)
            if number >= 0:
                seconds[side.name].append(time.perf_counter() - start)
    return {name: rounds for name, rounds in seconds.items() if rounds}


def operations(case: str, config: MEDConfig, texts: list[str]) -> float:
    """Return the operations that a case needs for an image with such texts; the ITC cosines are not counted."""
    kind, count = case.split("-")
    if kind == "itm":
        return sum(filter_work(config, lengths(texts[: int(count)])).values())
    captions = sum(captioner_work(config, int(count)).values())
    if kind == "caption":
        return captions
    scored = [*lengths(texts[:1]), *[NEW + 2] * int(count)]
    return captions + sum(filter_work(config, scored).values())


def lengths(texts: list[str]) -> list[int]:
    """Return the tokens of texts whose words are one token each, the first and the last token included."""
    return [len(text.split()) + 2 for text in texts]


def profiles(
    sides: list[Side], options: argparse.Namespace, config: MEDConfig, inputs: Inputs
) -> dict[str, dict[str, dict[str, float]]]:
    """Return seconds by stage of captions and of all texts' scores, and the operations that capfilt's stages need."""
    if not options.profile:
        return {}
    found, n = {}, options.profile
    scoring = [filter_work(config, lengths(texts)) for texts in inputs.texts]
    needed = {"captions": total([captioner_work(config, n)] * len(inputs.pixels)), "scores": total(scoring)}
    for side in sides:
        calls: dict[str, Callable[[], object]] = {
            "captions": partial(side.caption, inputs.pixels, n),
            "scores": partial(side.score, inputs.pixels, inputs.texts),
        }
        for name, call in calls.items():
            known = needed[name] if isinstance(side, Ours) else {}
            if options.device == "cpu":
                seconds = profile_stages(call, config.text.vocabulary)
            elif isinstance(side, Ours):
                model = side.captioner(sampling(n)) if name == "captions" else side.matcher
                seconds = subtract_stages(model.model, on_device(inputs.pixels, model.device), call)
            else:
                continue  # what it does with an image and with texts cannot be asked for apart
            found[f"{side.name}, {name}"] = {"seconds": seconds, "operations": known}
    return found


def total(works: list[dict[str, float]]) -> dict[str, float]:
    """Return the sum of operations by stage."""
    return {stage: sum(work[stage] for work in works) for stage in works[0]}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["base", "large", "tiny"], default="base", help="size (base)")
    parser.add_argument("--tiny", dest="model", action="store_const", const="tiny", help="the same as --model tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cases", nargs="+", default=["caption-*", "itm-*", "both-*", "shard-4"], help="patterns")
    for name, default, meaning in (
        ("batch", 1, "images of a call"),
        ("shard-images", 4, "images of the shard"),
        ("rounds", 5, "times that each side takes a case"),
        ("warmup", 1, "rounds before them"),
        ("documented", 1, "rounds in which transformers also matches pair by pair; 0 leaves it out"),
        ("drift-images", 16, "images whose texts tell how bfloat16 drifts; 0 leaves it out"),
        ("profile", 4, "captions of the call that is profiled; 0 leaves the profile out"),
        ("threads", 0, "CPU threads; 0 leaves torch's number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far both sides may differ (0.0001)")
    parser.add_argument("--models", type=Path, help="folder for the models, which a later run then finds")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
