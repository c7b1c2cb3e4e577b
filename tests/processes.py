"""Ranks in real processes, which need not import torch and timm each for themselves."""

from collections.abc import Callable
from typing import Any

from torch import multiprocessing


def start_ranks(work: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Call work(rank, *arguments) in as many processes, and wait for all.

    They are forks of a process that has imported what takes seconds, and that has no thread which a fork could lose.
    """
    multiprocessing.set_forkserver_preload(["timm", "torch.distributed"])
    multiprocessing.start_processes(work, arguments, ranks, start_method="forkserver")
