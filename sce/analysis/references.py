"""Which reference each run is compared with: never one that it took part in.

With a reference file, real runs among its members are compared with the other real runs alone, and
are no points. Without one the reference is the mean of the real runs, of a real run that of the
others; a single real run is the reference and no point itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sce.analysis.groups import Key, Member, most
from sce.measures import beside
from sce.records import HeadScores
from sce.reference import tuned_models
from sce.stats import Estimate


@dataclass(frozen=True)
class Given:
    """A reference file, and the task it is of where its name says so."""

    file: str
    scores: HeadScores
    task: str | None = None


@dataclass
class Target:
    """What a run is compared with."""

    words: str
    scores: np.ndarray
    """Mean, [layers, heads]."""
    runs: Sequence[Member] = ()
    """The real runs it is the mean of; empty for a file."""
    file: HeadScores | None = None
    _examples: Any = None

    @property
    def key(self) -> tuple[str, ...]:
        """The same for one reference alone."""
        return (self.words, *(run.name for run in self.runs))

    def examples(self, data_sha256: str | None, num_examples: int) -> np.ndarray:
        """Scores of the very examples that a run was scored on, else the mean."""
        if self.file is not None:
            return beside(self.file, data_sha256, num_examples)
        if self._examples is None:
            self._examples = _mean_examples(self.runs)
        rows = self._examples
        known = data_sha256 is not None and self.runs[0].data_sha256 == data_sha256
        return rows if known and rows is not False and len(rows) == num_examples else self.scores


@dataclass
class References:
    """The reference of one task, and what stands for it beside its own members."""

    real: Sequence[Member]
    """Real runs, all scored on the same examples."""
    given: Given | None
    in_file: frozenset[str] = frozenset()
    """Names of the runs that took part in the given file."""
    in_others: frozenset[str] = frozenset()
    """Names of those that took part in a file of the task that is not used, another study's."""
    _targets: dict[tuple[str, ...], Target] = field(default_factory=dict)

    @property
    def whole(self) -> Target | None:
        """The reference as it is shown, with all of its members."""
        if self.given is not None:
            key = ("", self.given.file)
            if key not in self._targets:
                own = self.given.scores
                self._targets[key] = Target(self.given.file, own.scores, file=own)
            return self._targets[key]
        return self._mean(self.real, "the mean of {} real run{}")

    def of(self, run: Member) -> Target | None:
        """What a run is compared with; None where nothing is left without it."""
        took_part = run.name in self.in_file
        if took_part or (self.given is None and run in self.real):
            others = [other for other in self.real if other is not run]
            return self._mean(others, "the mean of the {} other real run{}")
        return self.whole

    def is_point(self, run: Member) -> bool:
        """Whether a run may stand in a correlation."""
        if run.name in self.in_file or run.name in self.in_others:
            return False
        return not (self.given is None and self.real == [run])

    def took_part(self, run: Member) -> bool:
        """Whether a run is in the whole reference."""
        return run.name in self.in_file or (self.given is None and run in self.real)

    @property
    def is_one_pair(self) -> bool:
        """Whether there are two real runs in all, one of them the file."""
        points = [run for run in self.real if self.is_point(run)]
        return self.given is not None and len(tuned_models(self.given.scores)) == len(points) == 1

    @property
    def names(self) -> list[str]:
        """Of what is in the whole reference: runs, or adapters that are not at hand."""
        if self.given is None:
            return [run.name for run in self.real]
        names = []
        for index, member in enumerate(tuned_models(self.given.scores)):
            at_hand = [run.name for run in self.real if _is(run, member)]
            hashed = str(member.get("adapter_sha256") or member.get("train_sha256") or index)
            names.append(at_hand[0] if at_hand else hashed[:12])
        return names

    def agreed(self, tau: float, k: int) -> dict[str, Estimate]:
        """What a file says of its seeds, each against another; n is the number of pairs.

        Empty where it says so of other sets than those above `tau` and of the `k` best.
        """
        agreed = self.given.scores.reliability if self.given else {}
        if (agreed.get("tau"), agreed.get("k")) != (tau, k):
            return {}
        pairs, found = agreed.get("num_pairs") or 0, agreed.get("seed_against_seed") or {}
        return {name: Estimate(value, None, None, pairs) for name, value in found.items()}

    def _mean(self, runs: Sequence[Member], words: str) -> Target | None:
        if not runs:
            return None
        key = tuple(run.name for run in runs)
        if key not in self._targets:
            mean = np.mean([run.last.scores for run in runs], axis=0)
            plural = "s" * (len(runs) > 1)
            self._targets[key] = Target(words.format(len(runs), plural), mean, runs)
        return self._targets[key]


def references(
    key: Key, task: str, runs: Sequence[Member], given: Sequence[Given]
) -> tuple[References, list[str]]:
    """The reference of a task's runs, and what must be said of it."""
    warnings: list[str] = []
    real = [run for run in runs if run.kind == "real"]
    usual = most([run.data_sha256 for run in runs])
    data = (
        usual
        if usual in {run.data_sha256 for run in real}
        else most([run.data_sha256 for run in real] or [None])
    )
    same = [run for run in real if run.data_sha256 == data]
    if len(same) < len(real):
        left = ", ".join(run.name for run in real if run not in same)
        warnings.append(f"{left}: scored on other examples than {same[0].name}, so no reference")
    file = _fitting(key, task, runs, given)
    if file is not None:
        fit = [each for each in given if each.task == task and not why_not(key, each.scores)]
        others = [each for each in fit if each is not file] if file in fit else []
        found = References(same, file, _members(runs, [file]), _members(runs, others))
        warnings += [
            f"reference {other.file} is not used, nor are its members points: a task has one, and "
            f"{file.file} came first; analyse the studies apart, or give --reference"
            for other in others
        ]
    else:
        found = References(same, None)
    warnings += _said(found, runs)
    return found, warnings


def why_not(key: Key, scores: HeadScores) -> str | None:
    """Why a reference fits no run of a group; None if it may."""
    for what in ("scorer", "mode", "match"):
        if getattr(scores, what) != getattr(key, what):
            return f"{what}={getattr(scores, what)}, but the runs have {what}={getattr(key, what)}"
    weights = scores.provenance.get("weights_sha256")
    if weights and key.weights_sha256 and weights != key.weights_sha256:
        return f"it is of weights {weights[:12]}, the runs are of {key.weights_sha256[:12]}"
    return None if scores.shape == key.shape else f"shapes {scores.shape} and {key.shape}"


def _fitting(key: Key, task: str, runs: Sequence[Member], given: Sequence[Given]) -> Given | None:
    """Of those that may be compared the one of this task, else the one of the same examples."""
    able = [each for each in given if why_not(key, each.scores) is None]
    data = {run.data_sha256 for run in runs}
    named = [each for each in able if each.task == task]  # by the folder of a study
    asked = [each for each in able if each.task is None]
    alike = [each for each in asked if each.scores.provenance.get("data_sha256") in data]
    lone = asked if len([each for each in given if each.task is None]) == 1 else []
    return next(iter([*alike, *named, *lone]), None)


def _members(runs: Sequence[Member], given: Sequence[Given]) -> frozenset[str]:
    known = [member for each in given for member in tuned_models(each.scores)]
    return frozenset(run.name for run in runs if any(_is(run, member) for member in known))


def _is(run: Member, member: dict[str, Any]) -> bool:
    """Whether a member of a reference is this run, by its adapter or its training examples."""
    pairs = (
        (member.get("adapter_sha256"), run.adapter_sha256),
        (member.get("train_sha256"), run.train_sha256),
    )
    return any(theirs and theirs == own for theirs, own in pairs)


def _said(found: References, runs: Sequence[Member]) -> list[str]:
    warnings = []
    if found.whole is None:
        return [
            "no reference and no real run: heads are compared with the untuned model's alone; give "
            "runs on real data, or --reference FILE"
        ]
    if found.given is None and len(found.real) == 1:
        warnings.append(
            f"{found.real[0].name} is the only real run: it is the reference, no point itself, and "
            "there is no ceiling; a second seed on real data gives one"
        )
    if found.is_one_pair:
        warnings.append(
            "no ceiling: one real run is the reference and one is compared with it, and a single "
            "pair does not say what real runs share; a third seed on real data gives one"
        )
    if found.given is not None:
        data = found.given.scores.provenance.get("data_sha256")
        if data not in {run.data_sha256 for run in runs}:
            warnings.append(
                f"{found.given.file} was scored on other examples than the runs; head scores depend"
                " on them, so read recall with that in mind"
            )
    return warnings


def _mean_examples(runs: Sequence[Member]) -> np.ndarray | bool:
    """[examples, layers, heads], or False unless all runs have scores of the same examples."""
    rows = [run.files.per_example(run.steps[-1]) for run in runs]
    arrays = [each for each in rows if each is not None]
    if len(arrays) < len(runs) or len({each.shape for each in arrays}) > 1:
        return False
    kept = [~np.isnan(each).all(axis=(1, 2)) for each in arrays]
    if any((each != kept[0]).any() for each in kept):
        return False
    return np.mean(arrays, axis=0)
