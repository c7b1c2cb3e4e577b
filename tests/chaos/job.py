"""One start of the job of a chaos run: shards with a sample that kills its worker, and a store that fails."""

import sys
from functools import partial
from pathlib import Path

from fakes import NAMES, build_dying, job_config

from pipelines import bootstrap

folder, address = Path(sys.argv[1]), sys.argv[2]
cluster = {"address": address, "workers": 2, "cpus_per_worker": 1.0, "attempts": 3, "deadline_seconds": 60.0}
config = job_config(folder, run=f"flaky://{folder}/run", export=True, cluster=cluster)
bootstrap.run(config, partial(build_dying, marker=str(folder / "deaths"), times=10**9, delay=0.1), NAMES)
