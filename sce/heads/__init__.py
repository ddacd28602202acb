"""Scores of attention heads: one scorer a file, each with the two names `SPEC` and `score`."""

from types import ModuleType

from sce.heads import copy, copy_needle, insight, ov_write, query_focused, wu2024_code
from sce.heads.trace import GREEDY, PREFILL, TEACHER_FORCED, Spec, Trace

SCORERS: dict[str, ModuleType] = {
    "copy": copy,
    "copy_needle": copy_needle,
    "wu2024_code": wu2024_code,
    "insight": insight,
    "query_focused": query_focused,
    "ov_write": ov_write,
}

__all__ = ["GREEDY", "PREFILL", "SCORERS", "TEACHER_FORCED", "Spec", "Trace"]
