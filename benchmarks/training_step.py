"""How long does a pre-training step take, ours against the original's algorithm done plainly (plain_step.py)?

    python benchmarks/training_step.py                                      ViT-B/16 and BERT-base, batch 8, CPU
    python benchmarks/training_step.py --device cuda --batch 256 --levers --json step.json
    python benchmarks/training_step.py --width 64 --depth 2 --image 64 --batch 4 --queue 64 --vocabulary 500 --rounds 2

Both start from the same weights, and first have to give the same losses and momentum features on the same batch, over
two steps (float32, no dropout, likeliest negatives). Then all forms take steps in turns, so that what else the machine
does falls on all of them, and the ratios are those of the same round. --levers adds the plain form with each lever
alone. Operations a second are those of our step's matrix products, next to the rate of one large product.
"""

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from machine import describe
from plain_step import LEVERS, PlainStep
from step_inputs import build, likeliest, made_up_tokenizer, momentum, random_batch, random_queues
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from capfilt.config.training import Schedule, TrainingDevice
from capfilt.med.losses import draw
from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.training.data import Batch
from capfilt.training.objectives import Choose, Pretraining
from capfilt.training.optimiser import adamw, update
from capfilt.training.recompute import recompute

RATE = 3e-4
SIZES = (
    ("width", 768, "of both halves; heads are 64 wide"),
    ("depth", 12, "blocks of each half"),
    ("image", 224, "pixels"),
    ("batch", 8, "images of a step"),
    ("tokens", 15, "mean length of a text"),
    ("queue", 57600, "entries"),
    ("vocabulary", 30524, "words"),
)
"""Name, default and meaning of each size of the models and their batch."""


class OurStep:
    """Our objective, optimiser and update, as the training loop calls them."""

    def __init__(
        self, model: MED, plain: PlainStep, dtype: torch.dtype, recomputed: int = 0, choose: Choose = draw
    ) -> None:
        self.objective = Pretraining(model, plain.tokenizer, 0.0, plain.settings, choose=choose)
        self.device, self.dtype = next(model.parameters()).device, dtype
        self.objective.to(self.device).train()
        self.objective.momentum.image_queue.copy_(plain.queues.image)
        self.objective.momentum.text_queue.copy_(plain.queues.text)
        recompute(model, TrainingDevice(recompute_vision=recomputed, recompute_text=recomputed))
        self.optimiser = adamw(self.objective, Schedule(steps=1, learning_rate=RATE), self.device)

    def take(self, batch: Batch, done: float) -> dict[str, float]:
        """Take a step and return its losses."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.objective(batch, done)
        sum(losses.values()).backward()
        update(self.optimiser, RATE, None)
        return {name: loss.item() for name, loss in losses.items()}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    tokenizer, batch = made_up_tokenizer(options.vocabulary), random_batch(options)
    difference = check(options, tokenizer)
    steps = forms(options, tokenizer)
    seconds, memory = measure(steps, batch, options)
    flops = count(next(step for step in steps.values() if isinstance(step, OurStep)), batch)
    peaks = {dtype: matmul_rate(options.device, getattr(torch, dtype)) for dtype in options.dtypes}
    rows = {name: _row(name, seconds, memory, flops, options.batch) for name in steps}
    print(_table(rows, peaks))
    print(f"plain and ours differ by at most {difference:.1e} in losses and queues, over two steps")
    if options.json:
        found = {
            "options": vars(options),
            "difference": difference,
            "steps": rows,
            "seconds": seconds,
            "flops_of_our_step": flops,
            "matmul_flops_per_s": peaks,
            **describe(options.device, "torch", "timm"),
        }
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


def check(options: argparse.Namespace, tokenizer: Tokenizer) -> float:
    """Return by how much a plain step and ours differ, relatively, after making sure that it is rounding alone."""
    model = build(options, dropout=0.0)
    batch = random_batch(options)
    plain = PlainStep(deepcopy(model), tokenizer, momentum(options), random_queues(options), choose=likeliest)
    ours = OurStep(model, plain, torch.float32, choose=likeliest)
    worst = 0.0
    for done in (0.5, 0.6):  # the second step meets what the first left in weights, copies and queues
        found, expected = ours.take(batch, done), plain.take(batch, done)
        worst = max(worst, *(abs(found[name] / expected[name] - 1) for name in expected))
    # The momentum copies are judged by what they put into the queues: their keys' biases change nothing, and what
    # moves them is rounding that Adam makes as large as any gradient.
    for name, expected in plain.queues._asdict().items():
        worst = max(worst, float((getattr(ours.objective.momentum, f"{name}_queue") - expected).abs().max()))
    if worst > options.tolerance:
        raise SystemExit(f"plain and ours differ by {worst:.1e}, more than --tolerance {options.tolerance}")
    return worst


def forms(options: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, PlainStep | OurStep]:
    """Return all steps that are compared, each with weights of its own that start equal."""
    model, settings, queues = build(options, dropout=0.1), momentum(options), random_queues(options)
    levers = {"plain": frozenset()}
    if options.levers:
        levers |= {f"plain, {name}": frozenset([name]) for name in LEVERS}
        levers["plain, all levers"] = frozenset(LEVERS)
    steps: dict[str, PlainStep | OurStep] = {
        name: PlainStep(deepcopy(model), tokenizer, settings, queues, chosen) for name, chosen in levers.items()
    }
    for dtype in options.dtypes:
        steps[f"ours, {dtype}"] = OurStep(deepcopy(model), steps["plain"], getattr(torch, dtype))
        if options.recompute:
            name = f"ours, {dtype}, {options.recompute} recomputed"
            steps[name] = OurStep(deepcopy(model), steps["plain"], getattr(torch, dtype), options.recompute)
    return steps


def measure(
    steps: dict[str, PlainStep | OurStep], batch: Batch, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return the seconds of each round and, on a GPU, the most bytes that a step took beyond what was there before."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, int] = {}
    for number in range(-options.warmup, options.rounds):
        for name, step in steps.items():
            before = _reset(options.device)
            start = time.perf_counter()
            step.take(batch, (number + options.warmup) / 1000)
            _wait(options.device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
            if options.device == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() - before
    return seconds, memory


def count(step: OurStep, batch: Batch) -> int:
    """Return the floating point operations of a step's matrix products, attention included."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step.take(batch, 0.9)
    return counter.get_total_flops()


def matmul_rate(device: str, dtype: torch.dtype, size: int = 4096, repeats: int = 5) -> float:
    """Return the operations a second of a large matrix product, the best of a few."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _row(
    name: str, seconds: dict[str, list[float]], memory: dict[str, int], flops: int, images: int
) -> dict[str, float]:
    mine, ratios = seconds[name], [p / s for p, s in zip(seconds["plain"], seconds[name], strict=True)]
    row = {
        "median_s": median(mine),
        "min_s": min(mine),
        "max_s": max(mine),
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "samples_per_s": images / median(mine),
    }
    if name.startswith("ours"):
        row["flops_per_s"] = flops / median(mine)
    return row | ({"memory_gib": memory[name] / 2**30} if name in memory else {})


def _table(rows: dict[str, dict[str, float]], peaks: dict[str, float]) -> str:
    lines = [f"{'step':<40}{'median':>10}{'min':>10}{'max':>10}  {'plain / this (min to max)':<28}{'samples/s':>10}"]
    for name, row in rows.items():
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        line = f"{name:<40}{row['median_s']:>8.3f} s{row['min_s']:>8.3f} s{row['max_s']:>8.3f} s  {ratio:<28}"
        line += f"{row['samples_per_s']:>10.1f}"
        if "flops_per_s" in row:
            peak = peaks["bfloat16" if "bfloat16" in name else "float32"]
            line += f"  {row['flops_per_s'] / 1e12:.2f} of {peak / 1e12:.2f} TFLOP/s"
        lines.append(line + (f"  {row['memory_gib']:.2f} GiB" if "memory_gib" in row else ""))
    return "\n".join(lines)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _reset(device: str) -> int:
    """Forget the most memory taken so far and return what is taken now."""
    _wait(device)
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    for name, default, meaning in (
        *SIZES,
        ("rounds", 5, "steps of each form that count"),
        ("warmup", 1, "rounds before them"),
        ("threads", 0, "CPU threads; 0 leaves torch's number"),
        ("recompute", 0, "also ours with this many blocks of each half recomputed"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--levers", action="store_true", help="also the plain form with each lever alone, and with all")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far plain and ours may differ (0.0001)")
    parser.add_argument("--json", help="file for the result")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
