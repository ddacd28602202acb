"""Which runs may be compared, and which are seeds of one setting.

Heads of different weights have nothing in common, and scores of another scorer, mode or match are
other quantities: such runs are grouped apart. Within a group runs are told apart by task.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from sce.analysis.load import Loaded, RunFiles
from sce.analysis.parts import KINDS
from sce.records import HeadScores

Row = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """What runs of one group share."""

    weights_sha256: str | None
    scorer: str
    mode: str
    match: str
    shape: tuple[int, int]

    @property
    def words(self) -> str:
        """For headings and messages."""
        weights = (self.weights_sha256 or "unknown")[:12]
        layers, heads = self.shape
        score = f"{self.scorer}, {self.mode}, {self.match}"
        return f"{score}; {layers} x {heads} heads of weights {weights}"


@dataclass
class Member:
    """A run with scores, and what it was tuned on."""

    files: RunFiles
    task: str
    setting: str
    kind: str
    seed: int | None
    steps: Sequence[int]
    """Rising: those with a row and scores."""

    @property
    def name(self) -> str:
        """As in `RunFiles`."""
        return self.files.name

    @property
    def row(self) -> Row:
        """Of the last step."""
        return self.files.rows[self.steps[-1]]

    @cached_property
    def last(self) -> HeadScores:
        """Scores at the last step."""
        return self.scores(self.steps[-1])

    @cached_property
    def base(self) -> HeadScores | None:
        """Its own scores before tuning, where it has them."""
        return self.scores(0) if self.steps[0] == 0 else None

    @property
    def data_sha256(self) -> str | None:
        """Of the examples that its heads are scored on."""
        return self.last.provenance.get("data_sha256")

    @property
    def key(self) -> Key:
        """Its group."""
        last = self.last
        weights = last.provenance.get("weights_sha256")
        return Key(weights, last.scorer, last.mode, last.match, last.shape)

    def scores(self, step: int) -> HeadScores:
        """Mean scores at one of `steps`."""
        found = self.files.scores(step)
        assert found is not None
        return found

    @property
    def train_sha256(self) -> str | None:
        """Of its training examples, in their order."""
        return self.row.get("train_sha256") or self.files.adapter.get("train_sha256")

    @property
    def adapter_sha256(self) -> str | None:
        """Of its adapter, where that lies beside it."""
        return self.files.adapter.get("adapter_sha256")


def members(loaded: Loaded) -> list[Member]:
    """The runs that can be analysed; the others are noted in `loaded`."""
    found: list[Member] = []
    twins = _twins(loaded.runs)
    for run in loaded.runs:
        steps = [step for step in run.rows if run.scores(step) is not None]
        kind = _kind(run)
        if not steps:
            loaded.lose(run.folder, run.name, "no scores of heads that can be read")
        elif steps[-1] == 0 and kind != "untuned":
            loaded.lose(run.folder, run.name, "not tuned: nothing after step 0")
        elif run.folder in twins:
            reason = f"its adapter is that of {twins[run.folder]}: a run that is there twice is one"
            loaded.lose(run.folder, run.name, reason)
        else:
            job, row = run.job, run.rows[steps[-1]]
            task, seed = (job.task, job.seed) if job else (row["task"], None)
            seed = row["seed"] if seed is None else seed
            found.append(Member(run, task, _setting(run), kind, seed, steps))
        loaded.skipped += run.skipped
        run.skipped = []
    _name_sizes(found)
    return found


def grouped(found: Sequence[Member]) -> dict[Key, dict[str, list[Member]]]:
    """Group -> task -> runs, the largest group first, tasks in the order of their first run."""
    groups: dict[Key, dict[str, list[Member]]] = {}
    for member in found:
        groups.setdefault(member.key, {}).setdefault(member.task, []).append(member)
    return dict(sorted(groups.items(), key=lambda item: -sum(map(len, item[1].values()))))


def most(values: Sequence[Any]) -> Any:
    """The most frequent value, the first of those in a tie."""
    return Counter(values).most_common(1)[0][0]


def odd_ones(runs: Sequence[Member]) -> list[str]:
    """Warnings about runs of a task that differ from most in what should be the same."""
    return [*_unlike(runs), *_unmatched(runs)]


def _some(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _unmatched(runs: Sequence[Member]) -> list[str]:
    """Runs that learnt from far more or fewer answer tokens than most."""
    known = {m.name: int(m.row.get("target_tokens") or 0) for m in runs if m.kind != "untuned"}
    usual = median(known.values()) if known else 0
    odd = [f"{name} ({n:,})" for name, n in known.items() if n and not usual / 2 <= n <= usual * 2]
    if not odd:
        return []
    return [
        f"{_some(odd)}: trained on so many answer tokens, where half of the runs of "
        f"the task had {usual:,.0f} or more; sizes are not matched, so kinds of data may differ by "
        "that"
    ]


def _unlike(runs: Sequence[Member]) -> list[str]:
    about: dict[str, Callable[[Member], Any]] = {
        "other examples for its heads": lambda m: m.data_sha256,
        "another prompt": lambda m: m.last.provenance.get("prompt_sha256"),
        "other validation questions": lambda m: m.row.get("eval_sha256"),
        "another length": lambda m: m.last.provenance.get("context_tokens"),
        "another dtype": lambda m: m.last.provenance.get("dtype"),
        "another number of steps": lambda m: None if m.kind == "untuned" else m.steps[-1],
    }
    warnings = []
    for what, of in about.items():
        values = [of(member) for member in runs]
        usual = most([value for value in values if value is not None] or [None])
        odd = [m.name for m, v in zip(runs, values, strict=True) if v not in (None, usual)]
        if odd:
            warnings.append(
                f"{_some(odd)}: {what} than most runs of the task, so its figures "
                "are not quite those of the others"
            )
    return warnings


def _twins(runs: Sequence[RunFiles]) -> dict[Path, str]:
    """Folder -> the run that it copies: the same adapter, scored alike; a study's come first."""
    first: dict[tuple[Any, ...], str] = {}
    twins: dict[Path, str] = {}
    for run in sorted(runs, key=lambda run: run.job is None):
        if adapter := run.adapter.get("adapter_sha256"):
            key = (adapter, *(run.last_row[name] for name in ("task", "scorer", "mode", "match")))
            if first.setdefault(key, run.name) != run.name:
                twins[run.folder] = first[key]
    return twins


def _kind(run: RunFiles) -> str:
    if run.job and run.job.kind in KINDS:
        return run.job.kind
    row = run.last_row
    if row.get("mix"):
        return "mixture"
    if row.get("concept") == "limited":
        return "limited"
    return "real" if row.get("concept") == row.get("context") == "real" else "synthetic"


def _setting(run: RunFiles) -> str:
    if run.job and run.job.setting:
        return run.job.setting
    row = run.last_row
    cell = str(row.get("mix") or f"{row.get('concept')}/{row.get('context')}")
    return cell if row.get("limited") is None else f"{cell} ({row['limited']})"


def _name_sizes(found: Sequence[Member]) -> None:
    """Settings of several sizes are several settings, where no study says what is one.

    Of runs on real data the largest size is what real data gives; fewer examples limit it, as a
    study has it too.
    """
    for task in {member.task for member in found}:
        own = [member for member in found if member.task == task and not member.files.job]
        sizes = {member.row.get("num_train") for member in own} - {None}
        real = [member.row.get("num_train") or 0 for member in own if member.kind == "real"]
        for member in own if len(sizes) > 1 else []:
            size = member.row.get("num_train")
            if member.kind == "real" and (size or 0) < max(real):
                member.kind = "limited"
            member.setting += f" n={size}" if size is not None else " n=?"
