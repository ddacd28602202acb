"""Imports `sce` where some of the packages that it depends on are not installed.

A bare PyTorch image has torch, and transformers and peft are soon there; what reads data or text
(`datasets`, `bm25s`, `rouge_score`, ...) is imported by `sce` on the way to decoding and training
but never called by a bench on random tokens. `with stand_ins():` puts a stand-in in the place of
each that is missing, for the imports inside it alone.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

UNUSED = ("bm25s", "datasets", "jaxtyping", "rouge_score", "sentencex", "torchmetrics")


class _Nothing:
    """Whatever is asked of it, it is that: a class to derive from, a function, a type."""

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> "_Nothing":
        return self

    def __getitem__(self, item: Any) -> type:
        return object

    def __mro_entries__(self, bases: tuple) -> tuple[type]:
        return (object,)


class _Module(ModuleType):
    """An empty package whose names are all `_Nothing`."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


class _Finder(MetaPathFinder, Loader):
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.split(".")[0] not in self.names:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        del module


def missing(*names: str) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in names if find_spec(name) is None]


@contextmanager
def stand_ins() -> Iterator[list[str]]:
    """Yields the packages that were stood in for."""
    # transformers looks once for what it could use, and must not find a stand-in.
    import peft  # noqa: F401
    from transformers.utils.import_utils import is_datasets_available

    is_datasets_available()
    names = missing(*UNUSED)
    finder = _Finder(set(names))
    sys.meta_path.append(finder)
    try:
        yield names
    finally:
        sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if isinstance(sys.modules[name], _Module):
                del sys.modules[name]
