"""What lies on disk: run folders and study folders, read with suspicion.

A file that is missing, torn or not ours is named with the reason and left out; nothing raises but
for a path that holds nothing at all. Scores are read when they are asked for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sce.analysis.parts import Skipped
from sce.analysis.planned import Job, read_study
from sce.errors import InputError
from sce.records import HeadScores

_TEXT = ("task", "scorer", "mode", "match")
_NUMBERS = ("tau", "k", "seed")


@dataclass
class RunFiles:
    """The folder of one run: its rows by step, and its score files."""

    folder: Path
    shown: str
    """The folder as the user would type it."""
    rows: dict[int, dict[str, Any]]
    """Step -> row of records.jsonl, rising; what was torn is left out."""
    job: Job | None = None
    label: str = ""
    """Its name where several folders have the same; else empty."""
    skipped: list[Skipped] = field(default_factory=list)
    """What of it was left out so far; reading scores adds to it."""
    _scores: dict[int, HeadScores | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the study, else of the folder."""
        return self.label or (self.job.name if self.job else self.folder.name)

    @property
    def last_row(self) -> dict[str, Any]:
        """The row of the last step."""
        return self.rows[max(self.rows)]

    def scores(self, step: int) -> HeadScores | None:
        """Mean scores at a step; None where they are missing or torn, which is then noted."""
        if step not in self._scores:
            self._scores[step] = self._read(step)
        return self._scores[step]

    def per_example(self, step: int) -> np.ndarray | None:
        """Scores of single examples, [examples, layers, heads]; None where they are not at hand."""
        if self.scores(step) is None:
            return None
        try:
            return HeadScores.load(self.file(step)).per_example
        except InputError as error:
            self.skip(self.file(step).with_suffix(".npz"), f"{error}; its mean is used")
            return None

    def file(self, step: int) -> Path:
        """Where the scores of a step lie."""
        return self.folder / "heads" / f"step-{step:06d}.json"

    def skip(self, file: Path, reason: str) -> None:
        """Note that a file was left out."""
        self.skipped.append(Skipped(self._shown(file), self.name, reason))

    def _shown(self, file: Path) -> str:
        return f"{self.shown}/{file.relative_to(self.folder).as_posix()}"

    def _read(self, step: int) -> HeadScores | None:
        file = self.file(step)
        if not file.is_file():
            self.skip(file, "missing: this step has accuracy alone")
            return None
        try:
            found = HeadScores.load(file, examples=False)
        except InputError as error:
            reason = str(error).removeprefix(f"{file}: ")
            self.skip(file, f"{reason}: this step has accuracy alone")
            return None
        row = self.rows[step]
        for what in ("scorer", "mode", "match"):
            if getattr(found, what) != row[what]:
                self.skip(file, f"{what} is not that of the run's records")
                return None
        return found

    @cached_property
    def adapter(self) -> Mapping[str, Any]:
        """adapter/sce.json, empty where there is none that can be read."""
        try:
            content = json.loads((self.folder / "adapter" / "sce.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


@dataclass
class Loaded:
    """All that was found under the paths that were given."""

    runs: list[RunFiles]
    skipped: list[Skipped]
    """Paths that are no run, and rows that were torn."""
    studies: list[tuple[str, Path]]
    """Name and folder of each study."""
    num_lost: int = 0
    """Folders without a row that can be used."""

    def lose(self, folder: Path, run: str | None, reason: str) -> None:
        """Note a run that is left out altogether."""
        self.num_lost += 1
        self.skipped.append(Skipped(str(folder), run, reason))


def load(paths: Sequence[Path]) -> Loaded:
    """Runs of run folders, of folders that hold run folders, and of study folders.

    A folder that is named twice is one run. Where two folders have one name, their parents' names
    come first.

    Raises:
        InputError: not one run has a whole row.
    """
    found = Loaded([], [], [])
    seen: set[Path] = set()
    for path in paths:
        for folder, job in _folders(path, found):
            if (real := folder.resolve()) not in seen:
                seen.add(real)
                _load_run(folder, job, found)
    if not found.runs:
        reasons = "; ".join(f"{skip.file}: {skip.reason}" for skip in found.skipped[:3])
        more = len(found.skipped) - 3
        raise InputError(
            f"no completed run in {', '.join(map(str, paths))} ({reasons}"
            f"{f'; and {more} more' if more > 0 else ''}); give folders that python -m sce.train "
            "wrote"
        )
    _tell_apart(found.runs)
    _tell_studies_apart(found)
    return found


def _folders(path: Path, found: Loaded) -> Iterator[tuple[Path, Job | None]]:
    """Run folders under a path, with what a study says of each."""
    if (path / "study.json").is_file():
        jobs = _study(path, found)
        if jobs is not None:
            yield from jobs
            return
    if (path / "records.jsonl").is_file():
        yield path, None
        return
    children = sorted(path.glob("*/records.jsonl")) if path.is_dir() else []
    if not children:
        found_file = "not a folder" if path.exists() else "no such folder"
        reason = "no records.jsonl in it" if path.is_dir() else found_file
        found.lose(path, None, reason)
    for child in children:
        yield child.parent, None


def _study(path: Path, found: Loaded) -> Sequence[tuple[Path, Job]] | None:
    try:
        planned = read_study(path)
    except InputError as error:
        found.skipped.append(Skipped(str(path / "study.json"), None, str(error)))
        return None
    if path not in (known for _, known in found.studies):
        found.studies.append((planned.name, path))
    found.skipped += planned.skipped
    for folder, job, reason in planned.lost:
        found.lose(folder, job.name, reason)
    return planned.runs


def _load_run(folder: Path, job: Job | None, found: Loaded) -> None:
    records = folder / "records.jsonl"
    name = job.name if job else None
    if not records.is_file():
        found.lose(folder, name, "no records.jsonl: it has not run yet, or not to a validation")
        return
    try:
        lines = records.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found.lose(records, name, f"cannot be read ({error})")
        return
    run = RunFiles(folder, str(folder), {}, job)
    for number, line in enumerate(lines, 1):
        row, reason = _row(line)
        if row is None:
            torn = "the last line is torn" if number == len(lines) and "JSON" in reason else None
            run.skip(records, f"line {number}: {torn or reason}")
        else:
            run.rows[row["step"]] = row
    run.rows = dict(sorted(run.rows.items()))
    if run.rows:
        found.runs.append(run)
    else:
        found.skipped += run.skipped
        found.lose(records, name, "not one whole row")


def _row(line: str) -> tuple[dict[str, Any] | None, str]:
    """A row that can be used, or why it cannot."""
    try:
        row = json.loads(line)
    except ValueError:
        return None, "not JSON"
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None, "no row of a run: it has no step"
    for names, kinds in ((_TEXT, (str,)), (_NUMBERS, (int, float))):
        for name in names:
            if not isinstance(row.get(name), kinds) or isinstance(row[name], bool):
                return None, f"{name} is {row.get(name)!r}"
    if not isinstance(row.get("f1"), (int, float)):
        return None, "no F1"
    return row, ""


def _tell_studies_apart(found: Loaded) -> None:
    """Settings that several studies call alike are several settings."""
    names = [name for name, _ in found.studies]
    for name, study in found.studies if len(names) > 1 else []:
        shown = name if names.count(name) == 1 else str(study)
        for run in found.runs:
            if run.job and run.folder.is_relative_to(study):
                run.job = replace(run.job, setting=f"{shown}: {run.job.setting}")


def _tell_apart(runs: Sequence[RunFiles]) -> None:
    """Names that stand for one run each."""
    by_name: dict[str, list[RunFiles]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    for name, own in by_name.items():
        for number, run in enumerate(own if len(own) > 1 else []):
            parent = run.folder.resolve().parent.name
            taken = [r for r in own[:number] if r.folder.resolve().parent.name == parent]
            run.label = f"{parent}/{name}" + (f"-{len(taken) + 1}" if taken else "")
