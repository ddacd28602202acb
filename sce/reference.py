"""Reference head sets: which file fits a run, and what to type to make one that does."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sce.errors import InputError
from sce.records import TAUS, HeadScores, RunFacts, origin_differences, provenance

SEEDS = (100, 101)
"""Seeds of a reference's members: none that a run has by default."""
_OF_KINDS = (
    *("data.concept", "data.context", "data.train.concept", "data.train.context", "data.limited"),
    *("data.entity_base", "data.label", "data.mix", "data.writer", "data.written", "data.built"),
)
"""Options that say which kind of data is trained on."""


def load_reference(
    file: Path, facts: RunFacts, overrides: Sequence[str] = ()
) -> tuple[HeadScores, list[str]]:
    """A reference head set that fits a run, and warnings about what differs without being wrong.

    Args:
        file: HeadScores JSON.
        facts: of the run.
        overrides: what the user typed, for the commands that make a reference.

    Raises:
        InputError: it is missing, or of another model, shape, scorer, mode or match, or this run is
            one of those it was averaged from. The message ends with what makes a fitting one.
    """
    commands = " && ".join(reference_commands(facts, overrides))
    ending = f"make one with: {commands}; or run without one: reference=none"
    try:
        reference = HeadScores.load(file)
    except InputError as error:
        raise InputError(f"reference: {error}; {ending}") from None
    for name in ("scorer", "mode", "match"):
        theirs, own = getattr(reference, name), getattr(facts, name)
        if theirs != own:
            raise InputError(
                f"reference {file}: {name}={theirs}, but the run has {name}={own}, and such scores "
                f"are never compared; {ending}"
            )
    weights = str(reference.provenance.get("weights_sha256"))
    if weights != facts.weights_sha256 or reference.shape != facts.shape:
        raise InputError(
            f"reference {file}: heads {reference.shape} of the model with weights {weights[:12]}, "
            f"but this one has {facts.shape} and {facts.weights_sha256[:12]}, and heads of "
            f"different models have nothing in common; {ending}"
        )
    if any(member.get("train_sha256") == facts.train_sha256 for member in tuned_models(reference)):
        raise InputError(
            f"reference {file}: this run, with seed={facts.seed}, is one of the runs it was "
            "averaged from, and would be compared with itself; take another seed or reference=none"
        )
    return reference, _differences(file, reference, facts)


def greedy_sibling(file: Path) -> Path | None:
    """The same reference in greedy mode, where it lies beside `file` under the usual name."""
    sibling = file.with_name(file.name.replace("teacher_forced", "greedy"))
    return sibling if sibling != file and sibling.is_file() else None


def reference_commands(facts: RunFacts, overrides: Sequence[str]) -> list[str]:
    """The commands that make a reference for a run: tune two seeds, score, average.

    The model, data and trainer that the user chose are kept, tuned is in the cell (real, real), and
    the commands can be pasted into a shell; synthetic data of the user's own gives its place to
    `REAL_QUESTIONS`. What is scored is the run's own reference split, so its data stay as they are.
    """
    given = {_name(o): o.partition("=")[2] for o in overrides}
    own = ("data.train.path",) if given.get("data.label", "null") != "null" else ()
    tuned = [o for o in overrides if _name(o) not in (*_OF_KINDS, *own)]
    tuned += [f"{name}=REAL_QUESTIONS" for name in own]
    tuning = _of(
        tuned, ("hydra", "model", "data", "batch", "lora", "trainer", "optimizer", "attention")
    )
    scoring = of_scoring(overrides)
    how = [f"scorer={facts.scorer}", f"mode={facts.mode}", f"match={facts.match}"]
    commands = []
    for seed in SEEDS:
        run = f"runs/reference-{seed}"
        real = ["data.concept=real", "data.context=real", "reference=none", f"seed={seed}"]
        commands.append(command_line("train", [*tuning, *real, f"run_dir={run}"]))
        out = [f"adapter={run}/adapter", f"out=reference-{seed}.json"]
        commands.append(command_line("score", [*scoring, *how, *out]))
    commands.append(command_line("score", [*scoring, *how, "out=untuned.json"]))
    files = ",".join(f"reference-{seed}.json" for seed in SEEDS)
    tau = [] if facts.tau == TAUS.get(facts.scorer) else [f"tau={facts.tau:g}"]
    average = [
        "action=average",
        f"files=[{files}]",
        "base=untuned.json",
        *tau,
        f"k={facts.k}",
        "out=reference.json",
    ]
    return [*commands, command_line("headset", average)]


def of_scoring(overrides: Sequence[str]) -> list[str]:
    """Those of a training run's overrides that scoring takes: its model and its examples."""
    return _of(overrides, ("hydra", "model", "data", "batch", "attention", "max_new_tokens"))


def of_scores(overrides: Sequence[str]) -> list[str]:
    """How they score, besides."""
    return _of(overrides, ("scorer", "mode", "match"))


def _of(overrides: Sequence[str], groups: tuple[str, ...]) -> list[str]:
    return [o for o in overrides if _name(o).split(".")[0] in groups]


def _name(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def command_line(name: str, overrides: Sequence[str]) -> str:
    """What to type, quoted for a shell."""
    return shlex.join(["python", "-m", f"sce.{name}", *overrides])


def tuned_models(reference: HeadScores) -> list[dict[str, Any]]:
    """Those behind a reference: the ones averaged, or the one that a plain file scores."""
    origin = reference.provenance
    members = origin.get("members")
    if members is None:
        known = {"adapter_sha256": origin.get("adapter_sha256"), **(origin.get("adapter") or {})}
        members = [known] if any(known.values()) else []
    return [member for member in members if member]


def _differences(file: Path, reference: HeadScores, facts: RunFacts) -> list[str]:
    """One warning for all that was different when the reference was scored, one for what it is."""
    warnings = []
    if differs := origin_differences(reference.provenance, provenance(facts)):
        warnings.append(
            f"reference {file.name} was scored with other {', '.join(differs)} than this run; head "
            "scores depend on them, so read recall with that in mind or make a reference of your "
            "own (docs/reference.md)"
        )
    members = tuned_models(reference)
    synthetic = [m for m in members if m.get("concept") not in (None, "real")]
    if len(members) < 2 or synthetic:
        tuned = f"{len(members)} tuned models, {len(synthetic)} of them on synthetic data"
        warnings.append(
            f"reference {file.name} comes from {tuned}; two or more on real data are due"
        )
    return warnings
