"""How much memory does a pre-training step take, and how does it fall when blocks are recomputed?

    python benchmarks/step_memory.py                                             ViT-B/16 and BERT-base, batch 8, CPU
    python benchmarks/step_memory.py --device cuda --batch 64 --dtype bfloat16
    python benchmarks/step_memory.py --width 64 --depth 2 --image 32 --batch 2 --queue 64 --vocabulary 500 --blocks 0 2

The step is that of training: three losses, momentum copies and queues, AdamW. For each number of last blocks that both
halves recompute (device.recompute_vision and device.recompute_text), a fresh process takes a step, which makes the
optimiser's state, and then the one that counts. Reports the peak: on a GPU that of torch's allocator, and what is held
between steps (weights, copies, queues, optimiser's state); on a CPU that of the whole process, by the kernel's count.
Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import torch
from machine import describe
from step_inputs import build, made_up_tokenizer, momentum, random_batch, random_queues
from training_step import SIZES, OurStep

GIB = 2**30


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    rows = {}
    for blocks in options.blocks:
        # a process of its own, since the most that one took never falls again
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows[f"{blocks} recomputed"] = pool.submit(measure, options, blocks).result()
    found = {"options": vars(options), "steps": rows, **describe(options.device, "torch", "timm")}
    print(json.dumps(found, indent=2))


def measure(options: argparse.Namespace, blocks: int) -> dict[str, float]:
    """Return what a step takes with so many blocks recomputed: GiB at most, on a GPU GiB held before it, seconds."""
    torch.set_num_threads(options.threads)
    given = SimpleNamespace(
        tokenizer=made_up_tokenizer(options.vocabulary), settings=momentum(options), queues=random_queues(options)
    )
    step = OurStep(build(options, dropout=0.1), given, getattr(torch, options.dtype), blocks)
    batch = random_batch(options)
    step.take(batch, 0.5)
    held = _held(options.device)
    started = time.perf_counter()
    step.take(batch, 0.6)  # reads its losses back, so all of it is done
    seconds = time.perf_counter() - started
    return {"most_gib": round(_most(options.device) / GIB, 3), **held, "seconds": round(seconds, 2)}


def _held(device: str) -> dict[str, float]:
    """Reset a GPU's peak, and return what is held now; for a CPU nothing counts that."""
    if device != "cuda":
        return {}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return {"held_gib": round(torch.cuda.memory_allocated() / GIB, 3)}


def _most(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--blocks", type=int, nargs="+", default=[0, 4, 8, 12], help="last blocks of each half")
    for name, default, meaning in (*SIZES, ("threads", 1, "CPU threads")):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
