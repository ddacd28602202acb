"""Where heads look, example by example: what `sce.score looks=` left in a study's folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOOKS = "sce.looks/1"
MAX_A_TASK = 8
"""Examples that the page takes of one task and model."""
Look = Mapping[str, Any]


def looks_of(paths: Sequence[Path]) -> list[Look]:
    """Examples in looks/*.jsonl of the folders; a line that is not one is passed over.

    Args:
        paths: study folders, or any others.
    """
    files = [file for path in paths for file in sorted((path / "looks").glob("*.jsonl"))]
    found: list[Look] = []
    for file in files:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        own = [look for line in lines if (look := _read(line)) is not None]
        found += own[:MAX_A_TASK]
    return found


def _read(line: str) -> Look | None:
    try:
        look = json.loads(line)
    except ValueError:
        return None
    return look if isinstance(look, dict) and fits(look) else None


def fits(look: Look) -> bool:
    """Whether it is what `sce.looks/1` says: the parts are there and of one size."""
    try:
        steps = len(look["answer"])
        looked_at, scores = look["looked_at"], look["scores"]
        sizes = [[len(head) for head in layer] for layer in looked_at]
        return (
            look["schema"] == LOOKS
            and all(isinstance(look[name], str) for name in ("model", "task", "id"))
            and all(isinstance(token, str) for token in (*look["tokens"], *look["answer"]))
            and all(0 <= at < len(look["tokens"]) for at in look["evidence"])
            and sizes == [[steps] * len(layer) for layer in scores]
            and bool(sizes and sizes[0])
        )
    except (KeyError, TypeError):
        return False
