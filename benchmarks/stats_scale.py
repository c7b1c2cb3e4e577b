"""How long does a question to a large ledger take, and in how much memory?

    python benchmarks/stats_scale.py --candidates 10000000 --folder /tmp/big --json stats.json

Makes a ledger first (made_up_ledger.py) and leaves it there for the next time. Each figure is from a process of its
own, as a user meets it: reading, judging and laying down the ledger, then the answer. The cuts by each kind come first,
on one open run, and read the files once, so that disks do not count for the others. Seconds are the median of --rounds;
those of the processor hold where others are at work on the machine too. Memory is the most that was resident at once.
The input shards are not there, so the report shows no images. --only asks some questions again and leaves the other
answers in the file as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from machine import describe
from made_up_ledger import make

STRICT = "name: strict\nweb_itm: 0.8\nsynthetic_itm: 0.8\n"
"""Another policy, to compare with."""

_DIFFERENCE = """
import sys
from pathlib import Path
from capfilt.config import Policy, load
from capfilt.recut import difference, render_difference
from capfilt.runs import load_run
run = load_run(sys.argv[1])
print(render_difference(difference(run, run.config().policy, load(Policy, Path(sys.argv[2])))))
"""
"""What recut shows before it looks at the input shards, which a made-up run has none of."""

QUESTIONS = {
    "open_run": "-c import sys, capfilt; capfilt.open_run(sys.argv[1]).close()|RUN",
    "stats": "stats|RUN|--share|1",
    "report": "report|RUN|--output|FOLDER/report.html|--share|1",
    "inspect": "inspect|RUN|--share|1",
    "inspect --kept --source web --sort worst": "inspect|RUN|--kept|--source|web|--sort|worst|--share|1",
    "calibrate": "calibrate|RUN",
    "recut, the difference alone": f"-c {_DIFFERENCE}|RUN|FOLDER/strict.yaml",
    "compare, under another policy": "compare|RUN|RUN|--policy-second|FOLDER/strict.yaml",
    "stats --where": "stats|RUN|--where|words > 3 AND domain <> 'site1.example'|--share|1",
    "stats --by source --by itm --where": "stats|RUN|--by|source|--by|itm|--where|words > 3|--share|1",
    "stats --by language --share 0.1": "stats|RUN|--by|language|--share|0.1",
    "inspect --rejected --near-cut --where": "inspect|RUN|--rejected|--near-cut|--share|1"
    "|--where|domain = 'site1.example'",
}
"""What is asked -> the command line, its words parted by bars."""

_MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
wall = time.perf_counter() - start
print(json.dumps({"seconds": wall, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}))
"""

_EVERY = """
import sys, time, json, capfilt
from capfilt.stats import DIMENSIONS, cut
with capfilt.open_run(sys.argv[1]) as opened:
    for name in DIMENSIONS:
        if name != "language":
            start = time.perf_counter()
            cut(opened, [name])
            print(json.dumps({"by": name, "seconds": round(time.perf_counter() - start, 2)}), flush=True)
"""
"""Cuts an open run by one kind after the other, and prints how long each took."""


def ask(run: str, question: str, folder: str) -> dict[str, float]:
    """Return what a question cost in a process of its own."""
    words = [word.replace("FOLDER", folder) if word != "RUN" else run for word in question.split("|")]
    child = words[0].split(" ", 1) + words[1:] if words[0].startswith("-c") else ["-m", "capfilt.cli", *words]
    done = subprocess.run([sys.executable, "-c", _MEASURED, sys.executable, *child], capture_output=True, check=True)
    return json.loads(done.stdout)


def measure(run: str, name: str, rounds: int, folder: str) -> dict[str, object]:
    costs = [ask(run, QUESTIONS[name], folder) for _ in range(rounds)]
    seconds = [cost["seconds"] for cost in costs]
    return {
        "seconds": round(median(seconds), 1),
        "least_and_most": [round(min(seconds), 1), round(max(seconds), 1)],
        "cpu_seconds": round(median(cost["cpu"] for cost in costs), 1),
        "mib": round(max(cost["mib"] for cost in costs)),
    }


def by_each(run: str) -> dict[str, float]:
    """Return how long it takes to cut an open run by each kind, in seconds."""
    lines = subprocess.run([sys.executable, "-c", _EVERY, run], capture_output=True, check=True).stdout.splitlines()
    return {row["by"]: row["seconds"] for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000_000, help="of the ledger (10000000)")
    parser.add_argument("--folder", default="/tmp/capfilt-big-ledger", help="of the ledger (/tmp/capfilt-big-ledger)")
    parser.add_argument("--rounds", type=int, default=3, help="of each question (3)")
    names = ["by", *QUESTIONS]
    meaning = "questions to ask, by for --by each (all)"
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="NAME", help=meaning)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    run = make(arguments.folder, arguments.candidates).root
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    results = known.get("results", {})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "strict.yaml").write_text(STRICT)
        for name in arguments.only:
            results[name] = by_each(run) if name == "by" else measure(run, name, arguments.rounds, folder)
            print(json.dumps({name: results[name]}), flush=True)
            if arguments.json:  # each at once, so that what was measured is not lost
                size = {"candidates": arguments.candidates, "rounds": arguments.rounds}
                figures = size | describe("cpu", "duckdb", "pyarrow") | {"results": results}
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
