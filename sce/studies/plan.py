"""From a study's options to its jobs: the commands of every run, in the order they depend on.

    stage 0   real data, the reference's seeds
    stage 1   the reference: their mean
    stage 2   every setting and seed, the first of each intervened in once it is there;
              knockout, baselines and looks of the real-tuned model

Jobs of one stage do not depend on each other. Each job is a few commands that a user could type.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sce.errors import InputError
from sce.study_options import StudyOptions, TaskStudy

DIR = "{dir}"
"""In commands, the study's folder."""
LAST = "last.json"
"""In commands, a run's last scores, whose name holds the number of steps."""
REAL = "real"
"""The setting that is tuned on real data."""
_REAL_CELL = ("data.concept=real", "data.context=real")


@dataclass(frozen=True)
class Command:
    """One command of a job; `out` is the folder or file that it makes, and it alone."""

    program: str
    """train, headset, intervene or score: python -m sce.<program>."""
    overrides: tuple[str, ...]
    out: str
    """Relative to the study's folder."""
    optional: bool = False
    """What head scores may not allow: `NoHeads` is noted, and the job is done without it."""

    def at(self, folder: Path) -> "Command":
        """The command for a study in `folder`, once the runs that it needs are there.

        Raises:
            InputError: one of those has left no scores.
        """
        overrides = [_at(override, folder) for override in self.overrides]
        return replace(self, overrides=tuple(overrides))

    def line(self) -> str:
        """To be pasted into a shell."""
        return shlex.join(["python", "-m", f"sce.{self.program}", *self.overrides])


@dataclass(frozen=True)
class Job:
    """Commands that make one thing; done or not done as a whole."""

    name: str
    stage: int
    task: str
    kind: str
    """Of runs real, synthetic, limited or mixture; of others their name."""
    commands: tuple[Command, ...]
    setting: str = ""
    seed: int | None = None
    folder: str = ""
    """Of the run that it tunes, relative to the study's folder; none where it tunes none."""

    def to_json(self) -> dict[str, Any]:
        """For study.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Job":
        """As `to_json` gave it."""
        commands = [{**c, "overrides": tuple(c["overrides"])} for c in row["commands"]]
        return cls(**{**row, "commands": tuple(Command(**c) for c in commands)})


def jobs_of(study: StudyOptions, logger: str) -> list[Job]:
    """Every job of a study, stage after stage; in each every setting once before any twice.

    Raises:
        InputError: there is no task.
    """
    if not study.tasks:
        raise InputError("study.tasks is empty: name a task and its settings")
    jobs = [job for task in study.tasks for job in _Task(study, task, logger).jobs()]
    return sorted(jobs, key=lambda job: (job.stage, _turn(job.seed, study.seeds)))


def _turn(seed: int | None, seeds: Sequence[int]) -> int:
    """A study that is looked at half way then has all settings of all tasks, of fewer seeds."""
    return seeds.index(seed) if seed in seeds else 0


def kind_of(overrides: Sequence[str], natural: str = "synthetic") -> str:
    """Of a setting: real, limited (a relation, or fewer examples), mixture or synthetic.

    Data of the user's own that has a label is synthetic.

    Args:
        overrides: of the setting.
        natural: what training data is where nothing is said of it: real where a path names some.
    """
    given = dict(o.split("=", 1) for o in overrides if "=" in o)
    if "data.mix" in given:
        return "mixture"
    if "data.label" in given:
        return "synthetic"
    concept = given.get("data.concept", given.get("data.train.concept"))
    context = given.get("data.context", given.get("data.train.context", concept))
    cell = {each for each in (concept, context) if each is not None} or {natural}
    real = cell == {REAL}
    if concept == "limited" or (real and "data.num_train" in given):
        return "limited"
    return REAL if real else "synthetic"


@dataclass(frozen=True)
class _Task:
    study: StudyOptions
    task: str
    logger: str

    @property
    def _options(self) -> TaskStudy:
        return self.study.tasks[self.task]

    @property
    def _every(self) -> list[str]:
        """Overrides of all commands of this task."""
        path, own = self._options.path, self._options.every
        data = [f"data={self.task}"] if not any(o.startswith("data=") for o in own) else []
        return [*self.study.every, *data, *([f"data.train.path={path}"] if path else []), *own]

    @property
    def _scoring(self) -> list[str]:
        """What the runs say of scores, for whoever reads heads besides."""
        own = [*self.study.train, *self._options.train]
        return [o for o in own if o.startswith(("scorer=", "scorer.", "mode=", "match="))]

    @property
    def _settings(self) -> dict[str, list[str]]:
        return {REAL: list(_REAL_CELL), **self._options.settings}

    def jobs(self) -> list[Job]:
        """The task's jobs, in no particular order between stages."""
        jobs = [self._reference_run(seed) for seed in self.study.reference_seeds]
        jobs.append(self._reference())
        for seed in self.study.seeds:
            jobs += [self._run(setting, seed) for setting in self._settings]
        return [*jobs, *self._interventions()]

    # -- runs -------------------------------------------------------------------------------------

    def _train(self, folder: str, seed: int, more: Sequence[str]) -> Command:
        own = self._options
        shared = [*self._every, *self.study.train, *own.train]
        rest = [f"seed={seed}", f"study={self.study.name}", f"logger={self.logger}"]
        untuned = f"untuned={DIR}/untuned/{self.task}.npz"
        return Command("train", (*shared, *more, *rest, untuned, f"run_dir={DIR}/{folder}"), folder)

    def _reference_run(self, seed: int) -> Job:
        folder = self._run_folder("reference", seed)
        command = self._train(folder, seed, [*_REAL_CELL, "reference=none"])
        name = f"{self.task}-reference-seed{seed}"
        return Job(name, 0, self.task, REAL, (command,), "reference", seed, folder)

    def _run(self, setting: str, seed: int) -> Job:
        folder, options = self._run_folder(setting, seed), self._settings[setting]
        commands = [
            self._train(folder, seed, [*options, f"reference.path={DIR}/{self.reference_file}"])
        ]
        kind = self._kind(options)
        if kind != REAL and seed == self.study.seeds[0]:
            commands += self._tried_on(setting, seed, folder)
        name = f"{self.task}-{setting}-seed{seed}"
        return Job(name, 2, self.task, kind, tuple(commands), setting, seed, folder)

    def _kind(self, setting: Sequence[str]) -> str:
        """Of what all runs share and the setting adds; the size that all share limits none."""
        every = [*self._every, *self.study.train, *self._options.train]
        shared = [o for o in every if not o.startswith("data.num_train=")]
        named = any(o.startswith("data.train.path=") for o in shared)
        return kind_of([*shared, *setting], REAL if named or self.task == "needle" else "synthetic")

    def _run_folder(self, setting: str, seed: int) -> str:
        return f"runs/{self.task}-{setting}-seed{seed}"

    # -- reference --------------------------------------------------------------------------------

    @property
    def _members(self) -> list[str]:
        return [self._run_folder("reference", seed) for seed in self.study.reference_seeds]

    @property
    def reference_file(self) -> str:
        """The task's reference."""
        return f"reference/{self.task}.json"

    def _reference(self) -> Job:
        """The mean of the members; of a single one, its own scores."""
        files = ",".join(f"{DIR}/{folder}/heads/{LAST}" for folder in self._members)
        base = f"base={DIR}/{self._members[0]}/heads/step-000000.json"
        how = ("action=average", base, *self._sizes)
        if len(self._members) == 1:
            how = ("action=convert", "to=sce")
        overrides = (*how, f"files=[{files}]", f"out={DIR}/{self.reference_file}")
        command = Command("headset", overrides, self.reference_file)
        return Job(f"{self.task}-reference", 1, self.task, "reference", (command,))

    @property
    def _sizes(self) -> list[str]:
        """Threshold and k of the runs, where they are not the scorer's own."""
        every = [*self._every, *self.study.train, *self._options.train]
        given = dict(o.split("=", 1) for o in every if o.startswith(("scorer.k=", "scorer.tau=")))
        return [f"{name.removeprefix('scorer.')}={value}" for name, value in given.items()]

    # -- interventions ----------------------------------------------------------------------------

    def _interventions(self) -> list[Job]:
        options, jobs = self.study.interventions, []
        tuned = self._members[0]
        adapter = f"adapter={DIR}/{tuned}/adapter"
        if options.baselines is not None:
            more = ["method=baselines", *options.baselines, adapter]
            command = self._intervene(f"baselines/{self.task}", more)
            jobs.append(Job(f"{self.task}-baselines", 2, self.task, "baselines", (command,)))
        if options.looks is not None:
            file = f"looks/{self.task}.jsonl"
            shared = [*self._every, *self._scoring, *options.looks, adapter]
            out = [f"out={DIR}/looks/{self.task}.json", f"looks={DIR}/{file}"]
            command = Command("score", (*shared, *out), f"looks/{self.task}.json")
            jobs.append(Job(f"{self.task}-looks", 2, self.task, "looks", (command,)))
        if options.knockout is not None:
            command = self._knockout(f"knockout/{self.task}", tuned, options.knockout)
            jobs.append(Job(f"{self.task}-knockout", 2, self.task, "knockout", (command,)))
        return jobs

    def _tried_on(self, setting: str, seed: int, folder: str) -> list[Command]:
        """What is tried on one run of a setting, once it is tuned."""
        options, name = self.study.interventions, f"{self.task}-{setting}-seed{seed}"
        found = []
        if options.knockout_each is not None:
            found.append(self._knockout(f"knockout/{name}", folder, options.knockout_each))
        if options.patch is not None:
            found.append(self._patch(f"patch/{name}", folder, options.patch))
        return found

    def _knockout(self, out: str, folder: str, knockout: Sequence[str]) -> Command:
        heads = f"heads.file={DIR}/{self.reference_file}"
        adapter = f"adapter={DIR}/{folder}/adapter"
        command = self._intervene(out, ["method=knockout", heads, *knockout, adapter])
        return replace(command, optional=True)  # the reference may hold too few heads

    def _patch(self, out: str, folder: str, patch: Sequence[str]) -> Command:
        source = self._members[0]
        more = [
            "method=patch",
            f"source={DIR}/{source}/adapter",
            f"target={DIR}/{folder}/adapter",
            f"source_scores={DIR}/{source}/heads/{LAST}",
            f"target_scores={DIR}/{folder}/heads/{LAST}",
            *patch,
        ]
        return replace(self._intervene(out, more), optional=True)  # no head may lie in both sets

    def _intervene(self, out: str, more: Sequence[str]) -> Command:
        shared = [*self._every, *self._scoring, *self.study.interventions.every]
        rest = (f"study={self.study.name}", f"logger={self.logger}", f"out={DIR}/{out}")
        return Command("intervene", (*shared, *more, *rest), out)


def _at(override: str, folder: Path) -> str:
    """An override with the study's folder in it, and the name of a run's last scores."""
    text = override.replace(DIR, str(folder))
    if LAST not in text:
        return text
    name, _, value = text.partition("=")
    inside = value.removeprefix("[").removesuffix("]")
    files = ",".join(_last(Path(file)) for file in inside.split(","))
    return f"{name}=[{files}]" if value.startswith("[") else f"{name}={files}"


def _last(file: Path) -> str:
    if file.name != LAST:
        return str(file)
    found = sorted(file.parent.glob("step-*.json"))
    if not found:
        raise InputError(f"{file.parent}: no scores there; the run they come from is not finished")
    return str(found[-1])
