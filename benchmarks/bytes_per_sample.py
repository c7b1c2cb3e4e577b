"""How many bytes come from an object store for each sample of a shard, by units, with the kept index and without?

    python benchmarks/bytes_per_sample.py --json bytes.json

A tar of --samples images of --kib random KiB lies on the S3 server of the tests, whose proxy counts. It is planned;
then its units are read, once each after a walk through the headers, as without an index, and once by the index.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes import NAMES, job_config, write_shard
from s3 import Server, serve

from capfilt import storage
from capfilt.indexing import index_shard, open_planned
from capfilt.records import Sample
from capfilt.runs import start_run
from capfilt.shards import open_shard

URL = "s3://bucket/00000.tar"


def main() -> None:
    options = _options()
    os.environ |= {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}
    with serve() as server, tempfile.TemporaryDirectory() as name:
        os.environ["AWS_ENDPOINT_URL_S3"] = server.url
        result = measure(server, Path(name), options) | describe("cpu", "s3fs", "pyarrow", "moto")
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(server: Server, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Return requests and bytes a sample of planning, and of reading all units in both ways."""
    images = ((b"\xff\xd8" + os.urandom(options.kib << 10), "text") for _ in range(options.samples))
    data = Path(write_shard(folder / "00000.tar", images)).read_bytes()
    storage.publish(URL, data)
    run = start_run(job_config(folder, run="s3://bucket/run"), NAMES)
    cuts = [(lo, lo + options.unit) for lo in range(0, options.samples, options.unit)]

    def counted(read: Callable[[], object]) -> dict[str, float]:
        with server.counting() as seen:
            read()
        came = sum(request.bytes for request in seen)
        return {"requests": len(seen), "bytes_a_sample": round(came / options.samples)}

    def each(open_one: Callable[[], Iterable[Sample]]) -> None:
        for _ in open_one():
            pass

    planned = counted(lambda: index_shard(run, "00000", URL))
    shard = index_shard(run, "00000", URL)
    return {
        "samples": options.samples,
        "unit": options.unit,
        "bytes_a_sample_in_the_tar": round(len(data) / options.samples),
        "planning": planned,
        "units, each after a walk": counted(lambda: [each(lambda c=c: open_shard(URL).read(*c)) for c in cuts]),
        "units, by the index": counted(lambda: [each(lambda c=c: open_planned(run, shard).read(*c)) for c in cuts]),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000, help="of the shard (4000)")
    parser.add_argument("--unit", type=int, default=1000, help="samples of a unit (1000)")
    parser.add_argument("--kib", type=int, default=50, help="of an image (50)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
