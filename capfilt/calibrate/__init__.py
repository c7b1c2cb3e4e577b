"""Choose thresholds by measurement: what each lets in, keeps and loses on the run's own data."""

from capfilt.calibrate.curves import STEPS, Curve, Rate
from capfilt.calibrate.labels import Label, read_labels
from capfilt.calibrate.measured import Point, SourceCalibration
from capfilt.calibrate.proposal import Calibration, calibrate, thresholds
from capfilt.calibrate.rendering import render_calibration

__all__ = [
    "STEPS",
    "Calibration",
    "Curve",
    "Label",
    "Point",
    "Rate",
    "SourceCalibration",
    "calibrate",
    "read_labels",
    "render_calibration",
    "thresholds",
]
