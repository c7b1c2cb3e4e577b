"""capfilt: caption and filter noisy web image-text pairs, and train on what is kept (BLIP, arXiv 2201.12086)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capfilt.query import OpenRun, open_run

__version__ = "0.1.0"
__all__ = ["OpenRun", "__version__", "open_run"]


def __getattr__(name: str) -> object:
    """Load what is asked for at the first use, since `import capfilt` loads neither pyarrow nor a database."""
    if name in ("OpenRun", "open_run"):
        import importlib

        return getattr(importlib.import_module("capfilt.query"), name)
    raise AttributeError(f"module 'capfilt' has no attribute {name!r}")
