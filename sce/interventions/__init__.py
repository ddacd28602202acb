"""What happens to the answers if heads are taken out, or given another model's outputs."""

from sce.interventions.controls import random_heads
from sce.interventions.knockout import head_means, knockout
from sce.interventions.patching import Side, patched
from sce.interventions.select import Heads

__all__ = ["Heads", "Side", "head_means", "knockout", "patched", "random_heads"]
