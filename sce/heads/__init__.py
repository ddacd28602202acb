"""Scores of attention heads: one scorer a file, each with the two names `MODES` and `score`."""

from types import ModuleType

from sce.heads import copy, copy_needle
from sce.heads.trace import Trace

SCORERS: dict[str, ModuleType] = {"copy": copy, "copy_needle": copy_needle}

__all__ = ["SCORERS", "Trace"]
