"""What a bootstrap will take: hours, devices, storage and money, from its shards and a timed trial."""

from capfilt.forecast.figures import Forecast, forecast
from capfilt.forecast.pace import Pace, measured, told
from capfilt.forecast.rendering import render_forecast
from capfilt.forecast.trial import Trial, hold_trial

__all__ = ["Forecast", "Pace", "Trial", "forecast", "hold_trial", "measured", "render_forecast", "told"]
