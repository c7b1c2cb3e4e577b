"""What a bootstrap will take: hours, devices, storage and money, from its shards and a timed rehearsal."""

from capfilt.forecast.figures import Forecast, forecast
from capfilt.forecast.pace import Pace, measured, pace_at
from capfilt.forecast.rehearsal import Rehearsal, rehearse
from capfilt.forecast.rendering import render_forecast

__all__ = ["Forecast", "Pace", "Rehearsal", "forecast", "measured", "pace_at", "rehearse", "render_forecast"]
