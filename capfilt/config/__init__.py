"""Typed configuration: one frozen object for each job, and the only place that reads YAML."""

from capfilt.config.bootstrap import (
    BootstrapConfig,
    Controls,
    Device,
    ExportConfig,
    FilterSettings,
    ImageLimits,
    Policy,
    Sampling,
)
from capfilt.config.cluster import Cluster
from capfilt.config.loading import dump, load, loads
from capfilt.config.schema import Config, describe

__all__ = [
    "BootstrapConfig",
    "Cluster",
    "Config",
    "Controls",
    "Device",
    "ExportConfig",
    "FilterSettings",
    "ImageLimits",
    "Policy",
    "Sampling",
    "describe",
    "dump",
    "load",
    "loads",
]
