"""The calculator: what an optimizer will do to a layer, before anything is trained."""

from dynoscope.calculator.prediction import Prediction, predict

__all__ = ["Prediction", "predict"]
