"""How long does a question to a large ledger take, and in how much memory?

    python benchmarks/stats_scale.py --candidates 10000000 --folder /tmp/big --json stats.json

Makes a ledger first (made_up_ledger.py) and leaves it there for the next time. Each figure is from a process of its
own, as a user meets it: reading, judging and laying down the ledger, then the answer. One warm-up reads the files once,
so that disks do not count. Seconds are the median of --rounds. Memory is the most that was resident at once.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

from made_up_ledger import make

QUESTIONS = {
    "open": [],
    "stats": ["stats", "RUN"],
    "stats --by domain": ["stats", "RUN", "--by", "domain"],
    "stats --by source --by itm --where": ["stats", "RUN", "--by", "source", "--by", "itm", "--where", "words > 3"],
    "stats --by language --share 0.1": ["stats", "RUN", "--by", "language", "--share", "0.1"],
    "compare with itself": ["compare", "RUN", "RUN"],
}

_OPEN = "import sys, capfilt; capfilt.open_run(sys.argv[1]).close()"
_MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
wall = time.perf_counter() - start
print(json.dumps({"seconds": wall, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}))
"""


def ask(run: str, question: list[str]) -> dict[str, float]:
    """Return what a question cost in a process of its own."""
    command = ["-m", "capfilt.cli", *(run if word == "RUN" else word for word in question)]
    child = [sys.executable, *(command if question else ["-c", _OPEN, run])]
    done = subprocess.run([sys.executable, "-c", _MEASURED, *child], capture_output=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000_000)
    parser.add_argument("--folder", default="/tmp/capfilt-big-ledger")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    run = make(arguments.folder, arguments.candidates)
    ask(run.root, [])
    results = []
    for name, question in QUESTIONS.items():
        costs = [ask(run.root, question) for _ in range(arguments.rounds)]
        seconds = [cost["seconds"] for cost in costs]
        results.append(
            {
                "question": name,
                "seconds": round(median(seconds), 2),
                "least_and_most": [round(min(seconds), 2), round(max(seconds), 2)],
                "cpu_seconds": round(median(cost["cpu"] for cost in costs), 2),
                "mib": round(max(cost["mib"] for cost in costs)),
            }
        )
        print(json.dumps(results[-1]), flush=True)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {name: version(name) for name in ("duckdb", "pyarrow")}
    size = {"candidates": arguments.candidates, "date": str(datetime.date.today())}
    print(json.dumps(size | machine | versions))
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": results} | size | machine | versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
