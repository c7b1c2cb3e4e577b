"""What does a turn of the driver's loop cost when so many calls are in hand: hand out one, wait for any, take it in?

    python benchmarks/driver_turn.py --json driver_turn.json

Two actors stand for many: calls that never end wait on one of them, while the other answers at once. So what is
measured is what ray.wait makes of the number of calls, not that many processes.
"""

import argparse
import json
import time
from pathlib import Path

import ray
from machine import describe

TURNS = 100


@ray.remote(num_cpus=0)
class Actor:
    """Answers at once, or never."""

    def never(self) -> None:
        """Keep a call pending."""
        time.sleep(1e6)

    def at_once(self) -> int:
        """Return something small."""
        return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[2, 200, 2000, 4000], help="in hand (2 200 2000 4000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    result = {"turns": [turn(calls) for calls in options.calls]} | describe("cpu", "ray")
    ray.shutdown()
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def turn(calls: int) -> dict[str, float]:
    """Return wall and CPU milliseconds of a turn."""
    idle, quick = Actor.remote(), Actor.remote()
    ray.get(quick.at_once.remote())
    pending = [idle.never.remote() for _ in range(calls)]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(TURNS):
        done, _ = ray.wait([*pending, quick.at_once.remote()], num_returns=1, timeout=1.0, fetch_local=False)
        ray.get(done[0])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ray.kill(idle)
    return {"calls": calls, "wall_ms": round(wall / TURNS * 1e3, 2), "cpu_ms": round(cpu / TURNS * 1e3, 2)}


if __name__ == "__main__":
    main()
