"""Pictures of the keys that each token can attend to: in the terminal, as PNG or as SVG."""

from inf_llm.picture.draw import visualize
from inf_llm.picture.measure import Sight, measure

__all__ = ["Sight", "measure", "visualize"]
