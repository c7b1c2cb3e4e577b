"""Feed damaged shards and images to the readers for a while: all that may come out is samples, pixels or their errors.

    python benchmarks/fuzz.py --seconds 300

A case follows from its number alone, so that --first N --cases 1 repeats it. Cases run in a child process: the number
of one that fails, crashes, hangs or grows is reported, its input is kept, and the rest go on. Exit code 1 if there was
any.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from fuzz_inputs import make_case

from capfilt.config import ImageLimits
from capfilt.errors import ImageError, ShardError
from capfilt.images import decode
from capfilt.records import Sample
from capfilt.shards import open_shard

SLOW = 20  # seconds after which a case counts as hung
GROWTH = 400 << 20  # bytes that the process may grow by over all its cases, beyond the first hundred
LIMITS = ImageLimits(max_pixels=2_000_000)


def bear_image(data: bytes) -> None:
    """Decode an image, or be told why not."""
    try:
        image = decode(data, LIMITS)
    except ImageError:
        return
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.width * image.height <= LIMITS.max_pixels


def bear_shard(path: Path) -> None:
    """Read a shard in two ways, or be told why not."""
    try:
        shard = open_shard(str(path))
        samples = list(shard.read(0, shard.samples))
        middle = shard.samples // 2
        parts = [*shard.read(0, middle), *shard.read(middle, shard.samples)]
    except ShardError as refusal:
        told = str(refusal)
    else:
        told = str(path)
        check_samples(samples, parts)
    assert told.startswith(str(path))
    assert "\n" not in told


def check_samples(samples: list[Sample], parts: list[Sample]) -> None:
    """See that no position is missing, and that all of it fits into a table and into strict JSON."""
    assert [sample.position for sample in samples] == list(range(len(samples)))
    assert parts == samples
    for sample in samples:  # what a table, and strict JSON, can hold
        "".join([sample.key, sample.text, sample.url, sample.metadata, sample.error]).encode()
        if sample.metadata:
            json.loads(sample.metadata, parse_constant=lambda text: 1 / 0)


def bear_cases(first: int, cases: int, seconds: float, keep: Path) -> int:
    """Run cases in this process and return how many failed. Each is announced, in case it is the last."""
    warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF data
    signal.signal(signal.SIGALRM, _give_up)
    end, failed, allowed = time.monotonic() + seconds, 0, 1 << 62
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + cases):
            if time.monotonic() > end:
                break
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            name, data = make_case(number)
            signal.alarm(SLOW)
            try:
                bear(name, data, Path(folder))
            except BaseException:
                failed += 1
                (keep / f"{number}-{name}").write_bytes(data)
                sys.stderr.write(f"case {number}, {name}:\n{traceback.format_exc()}")
            finally:
                signal.alarm(0)
            size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            if number == first + 100:
                allowed = size + GROWTH
            elif size > allowed:
                sys.stderr.write(f"case {number}, {name}: grew the process to {size >> 20} MiB\n")
                allowed, failed = size + GROWTH, failed + 1
    return failed


def bear(name: str, data: bytes, folder: Path) -> None:
    if name.startswith("image"):
        bear_image(data)
        return
    (folder / name).write_bytes(data)
    bear_shard(folder / name)


def _give_up(signum: int, frame: object) -> None:
    raise TimeoutError(f"took over {SLOW} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="to run for at most (60)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--cases", type=int, default=1 << 40, help="at most (no limit)")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for inputs that fail")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.exit(min(100, bear_cases(options.first, options.cases, options.seconds, options.keep)))
    end, number, failed = time.monotonic() + options.seconds, options.first, 0
    while (left := end - time.monotonic()) > 0 and number < options.first + options.cases:
        arguments = ["--child", f"--first={number}", f"--cases={options.first + options.cases - number}"]
        child = subprocess.run(
            [sys.executable, __file__, *arguments, f"--seconds={left}", f"--keep={options.keep}"],
            stdout=subprocess.PIPE,
        )
        number = int(child.stdout.split()[-1]) + 1 if child.stdout else number
        if child.returncode < 0:  # a signal
            name, data = make_case(number - 1)
            (options.keep / f"{number - 1}-{name}").write_bytes(data)
            sys.stderr.write(f"case {number - 1}, {name}: ended its process by signal {-child.returncode}\n")
            failed += 1
        else:
            failed += child.returncode
    print(f"{number - options.first} cases, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
