"""Synthetic context extension: train on synthetic long contexts, watch retrieval heads form.

Importing `sce` imports nothing heavy; what is named here is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sce.data.example import Example
    from sce.errors import InputError
    from sce.records import HeadScores
    from sce.scoring import score_heads, top

__version__ = "0.1.0"
__all__ = ["Example", "HeadScores", "InputError", "score_heads", "top"]

_HOMES = {
    "Example": "sce.data.example",
    "HeadScores": "sce.records",
    "InputError": "sce.errors",
    "score_heads": "sce.scoring",
    "top": "sce.scoring",
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, from the module that it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
