"""Real processes that need not import torch and timm each for themselves."""

from collections.abc import Callable
from typing import Any

from torch import multiprocessing

# They are forks of a process that has imported what takes seconds, and that has no thread which a fork could lose.
multiprocessing.set_forkserver_preload(["timm", "torch.distributed"])


def start_ranks(work: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Call work(rank, *arguments) in as many processes, and wait for all."""
    multiprocessing.start_processes(work, arguments, ranks, start_method="forkserver")


def exit_code(work: Callable[..., object], *arguments: Any) -> int | None:
    """Call work in a process of its own, and return what that ends with: minus the signal, if one kills it."""
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode
