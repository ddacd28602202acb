"""What the logger has got, kept beside the run: a run that goes on logs no step twice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sce.records import write_json

FILE = "logged.json"
"""In the run's folder: figure -> the last step that was logged."""


class LogOnce:
    """Hands figures and pictures to a Lightning logger, each once a step.

    After a crash some steps past the last checkpoint are taken again, with what was logged of them.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._file: Path | None = None

    def open(self, run_dir: Path) -> None:
        """Take up what a run in this folder has logged, if it has begun."""
        self._file = run_dir / FILE
        if not self._last and self._file.is_file():
            self._last = json.loads(self._file.read_text(encoding="utf-8"))

    def metrics(self, logger: Any, metrics: Mapping[str, float], step: int) -> None:
        """Log those figures that are new at `step`, in optimiser steps."""
        new = {name: value for name, value in metrics.items() if self._is_new(name, step)}
        if new:
            logger.log_metrics(new, step=step)
            self._note(new, step)

    def image(self, logger: Any, name: str, file: Path, step: int) -> None:
        """Log a picture, if the logger takes any."""
        if hasattr(logger, "log_image") and self._is_new(name, step):
            logger.log_image(name, [str(file)], step=step)
            self._note({name: 0.0}, step)

    def _is_new(self, name: str, step: int) -> bool:
        return step > self._last.get(name, -1)

    def _note(self, names: Mapping[str, float], step: int) -> None:
        self._last |= dict.fromkeys(names, step)
        if self._file is not None and self._file.parent.is_dir():
            write_json(self._file, self._last)
