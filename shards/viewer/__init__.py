"""A dataset in the browser (viser): the layers of a sample as points, beside its image, its camera and predictions.

Every page that is open chooses for itself. It shows what is wrong with a sample, and goes on.
"""

from .predictions import Predictions
from .server import serve

__all__ = ["Predictions", "serve"]
