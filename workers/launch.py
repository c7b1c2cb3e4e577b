"""Run a training job in this process, or on several workers of a Ray cluster."""

from collections.abc import Callable

from capfilt.config.training import TrainingCluster
from capfilt.logs import everywhere
from capfilt.training.folder import TrainingRun


def launch(work: Callable[[], None], run: TrainingRun, cluster: TrainingCluster) -> None:
    """Call work once on each worker, and again if a worker died, until it has finished the run.

    Args:
        work: trains from the run's last state on. It is pickled, so its modules must be installed on every node.
        run: the folder that it works in.
        cluster: where it runs. One worker with address: local runs in this process.
    """
    with everywhere(run=run.folder):
        if cluster.in_this_process:
            work()
            return
        from workers.train_worker import train_on_workers  # Ray Train takes seconds to import

        train_on_workers(work, run, cluster)
