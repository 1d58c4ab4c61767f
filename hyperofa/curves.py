"""Where the configs of users name `CurvePlot`, which has moved to `hyperofa.training.curves`."""

from hyperofa.training.curves import CurvePlot

__all__ = ["CurvePlot"]
