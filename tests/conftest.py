import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: kernels then run on a CPU, step by step

if TYPE_CHECKING:
    from s3 import Server


hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no reason to fail
hypothesis.settings.load_profile("any machine")

ON_RAY = pytest.StashKey[set[Path]]()  # the files with tests on a Ray


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests on a Ray come first: they take longest, and processes that share the suite then end together."""
    config.stash[ON_RAY] = {item.path for item in items if _on_ray(item)}
    items.sort(key=lambda item: not _on_ray(item))


def _on_ray(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End Ray before a file that does without it: also when idle, it takes a twelfth of a core."""
    if nextitem is None or nextitem.path not in item.config.stash[ON_RAY]:
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            ray.shutdown()


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Files of tests need not outlive a power cut, and some ten thousand waits for a disk take a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # test_storage_placing.py tells that it is called
        yield


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


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """A real Ray on this machine, small, and the same in all files that need one, since a start takes seconds."""
    import ray  # here, so that tests without a cluster do not wait for the import

    if ray.is_initialized():
        return
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else Ray leaves a token file in the home folder
    tests = Path(__file__).parent
    os.environ["PYTHONPATH"] = f"{tests}{os.pathsep}{tests.parent}"  # for workers: the tests' fakes, and this tree
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # by itself 15: beside busy cores a worker takes minutes to start
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112  # by itself every ten seconds
    ray.init(
        "local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with mixed shards in `in`, for a bootstrap job of the test's own."""
    from fakes import mixed_shards  # here, like what the next one needs, so that other tests do not wait for imports

    mixed_shards(tmp_path / "in")
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as above, with the run of a job that was done in one process, which tests compare theirs with."""
    from fakes import NAMES, build_fakes, job_config, mixed_shards

    from pipelines import bootstrap

    folder = tmp_path_factory.mktemp("undisturbed")
    mixed_shards(folder / "in")
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    return folder


@pytest.fixture
def in_front() -> Iterator[None]:
    """Ctrl-C interrupts, as it does not where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
