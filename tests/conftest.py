import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: kernels then run on a CPU, step by step

if TYPE_CHECKING:
    from s3 import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests on a Ray come first: they take longest, and processes that share the suite then end together."""
    items.sort(key=lambda item: "ray_cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs, which a user does not have."""
    folder = Path(os.environ.get("CAPFILT_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set CAPFILT_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator["Server"]:
    """A real S3 server with one empty bucket, which the environment leads to as it would in use."""
    from s3 import serve  # here, since the import takes a second

    with serve() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL_S3", server.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "user")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield server


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A real Ray on this machine, small and started once, since a start takes seconds."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else Ray leaves a token file in the home folder
    tests = Path(__file__).parent
    os.environ["PYTHONPATH"] = f"{tests}{os.pathsep}{tests.parent}"  # for workers: the tests' fakes, and this tree
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112  # by itself every ten seconds
    import ray  # here, so that tests without a cluster do not wait for the import

    ray.init(
        "local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20
    )
    yield
    ray.shutdown()


@pytest.fixture
def in_front() -> Iterator[None]:
    """Ctrl-C interrupts, as it does not where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
