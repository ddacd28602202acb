"""What a run leaves behind: head scores, rows, and the facts that identify them (numpy only).

HeadScores JSON has schema `sce.heads/1`; the example-level scores lie beside it in an .npz.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sce.errors import InputError
from sce.options import rope_in_use
from sce.outputs import whole
from sce.score_files import (
    beside,
    checked_notes,
    is_line,
    parse_json,
    read_per_example,
    read_text,
    score_map,
)

SCHEMA = "sce.heads/1"
MODES = ("teacher_forced", "greedy", "prefill", "optimised")
"""Where scores may come from: gold or emitted tokens, the question's, or a training of gates."""
MATCHES = ("exact", "surface")
TAUS = {
    **{"copy": 0.1, "copy_needle": 0.02, "wu2024_code": 0.1, "insight": 0.1},
    **{"query_focused": 0.2, "ov_write": 1.0, "duo": 0.5},
}
"""Scorer -> its threshold: SPEC.tau of sce.heads, which needs torch; `duo`: its code's default."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before its first step; goes into every record row."""

    run: str
    run_dir: Path
    seed: int
    task: str
    concept: str
    context: str
    train_sha256: str
    eval_sha256: str
    reference_sha256: str
    """Of the reference split's examples, which head scores are measured on."""
    prompt_sha256: str
    weights_sha256: str
    scorer: str
    mode: str
    match: str
    tau: float
    k: int
    context_tokens: int
    """Longest prompt, in the model's tokens: of the split that is scored."""
    shape: tuple[int, int]
    """(layers, query heads a layer) of the model."""
    study: str | None = None
    mix: str | None = None
    limited: str | None = None  # the relation that a limited set keeps to
    num_train: int = 0
    """Training examples; 0: there is no training split."""
    rope: Mapping[str, float | None] = field(default_factory=dict)
    """By sce.model.rope.in_use: theta, the model's own ("was"), and a scaling asked for."""
    model: str = ""
    revision: str | None = None
    """The hub's commit of the model's files, else `model.revision` as it was given."""
    dtype: str = ""
    """Storage type of the base model while it was tuned or scored."""
    attention: str = ""
    """The backend that was taken; scores do not depend on it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What else a resumed run shares (sce.assemble.recipe), by the names of the options."""
    warnings: tuple[str, ...] = ()
    """What differs between the run and its reference without being wrong."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change when the run is resumed, in plain types."""
        data = ("train_sha256", "eval_sha256", "reference_sha256", "prompt_sha256")
        names = ("weights_sha256", *data, "seed", "scorer", "mode", "match")
        plain = {name: getattr(self, name) for name in names}
        version = {"version of sce": self.versions.get("sce")}
        return {**plain, "dtype": self.dtype, **version, **rope_in_use(self.rope), **self.recipe}


@dataclass
class HeadScores:
    """Scores of all heads, averaged over examples, and where they come from.

    Shapes: scores and base_scores [layers, heads]; per_example [examples, layers, heads].
    """

    scorer: str
    mode: str
    match: str
    scores: np.ndarray
    num_examples: int
    per_example: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    base_scores: np.ndarray | None = None
    """The untuned model's scores on the same examples (reference sets have them)."""
    reliability: dict[str, Any] = field(default_factory=dict)
    """Agreement of the parts a reference was averaged from, seed against seed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, heads a layer)."""
        return self.scores.shape[0], self.scores.shape[1]

    def save(self, file: Path) -> None:
        """Write the JSON, and the per-example scores beside it as .npz; never half a file.

        Raises:
            InputError: the name does not end in .json.
        """
        if file.suffix != ".json":
            raise InputError(f"{file}: head scores are plain JSON; end the name in .json")
        per_example = None
        if self.per_example is not None:
            per_example = f"{file.stem}.npz"
            with whole(file.with_name(per_example)) as part, part.open("wb") as stream:
                np.savez_compressed(stream, scores=self.per_example)
        layers, heads = self.shape
        content = {
            "schema": SCHEMA,
            "scorer": self.scorer,
            "mode": self.mode,
            "match": self.match,
            "num_layers": layers,
            "num_heads": heads,
            "num_examples": self.num_examples,
            "scores": _rounded(self.scores),
            "per_example": per_example,
            "provenance": self.provenance,
        }
        if self.base_scores is not None:
            content["base_scores"] = _rounded(self.base_scores)
        if self.reliability:
            content["reliability"] = self.reliability
        write_json(file, content)

    @classmethod
    def load(cls, file: Path, *, examples: bool = True) -> "HeadScores":
        """Read a HeadScores JSON, plain or .gz, and, where it is there, its .npz (`examples`).

        Raises:
            InputError: names the file and what is wrong with it: it is missing, truncated, no JSON
                or of another schema; keys are missing or of no known value; scores are of another
                shape or not finite (names the head); the .npz is of another shape or mean.
        """
        try:
            return _from_json(parse_json(read_text(file)), file if examples else None)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


def _from_json(content: Any, file: Path | None) -> HeadScores:
    origin, agreed = _checked_header(content)
    shape = (content["num_layers"], content["num_heads"])
    scores, base, per_example = score_map(content["scores"], shape), None, None
    if content.get("base_scores") is not None:
        try:
            base = score_map(content["base_scores"], shape)
        except InputError as error:
            raise InputError(f"base_scores: {error}") from None
    if file and (rows := beside(file, content.get("per_example"))):
        per_example = read_per_example(rows, scores, content["num_examples"])
    return HeadScores(
        scorer=content["scorer"],
        mode=content["mode"],
        match=content["match"],
        scores=scores,
        num_examples=content["num_examples"],
        per_example=per_example,
        provenance=origin,
        base_scores=base,
        reliability=agreed,
    )


def _checked_header(content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Provenance and reliability, once all that is not a score has a value that may be."""
    if not isinstance(content, dict):
        raise InputError("not a HeadScores file: no JSON object")
    if content.get("schema") != SCHEMA:
        raise InputError(
            f"schema {content.get('schema')!r}, not {SCHEMA!r}; for other tools' files see "
            "python -m sce.headset action=convert"
        )
    keys = ("scorer", "mode", "match", "num_layers", "num_heads", "num_examples", "scores")
    if missing := [key for key in keys if key not in content]:
        raise InputError(f"not a HeadScores file: {', '.join(missing)} missing")
    origin, agreed = checked_notes(content)
    # Other tools' files may not say how many examples they were made of.
    least = 0 if "imported_from" in origin else 1
    for key, low in (("num_layers", 1), ("num_heads", 1), ("num_examples", least)):
        if type(content[key]) is not int or content[key] < low:
            raise InputError(f"{key} is {content[key]!r}, not a whole number >= {low}")
    if not is_line(content["scorer"]) or not content["scorer"]:
        raise InputError(f"scorer is {content['scorer']!r}, not a name")
    for key, known in (("mode", MODES), ("match", MATCHES)):
        if content[key] not in known:
            raise InputError(f"{key} is {content[key]!r}, not one of {', '.join(known)}")
    return origin, agreed


def _rounded(scores: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 9) for value in row] for row in scores]


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; NaN becomes null."""
    text = json.dumps(finite(content), indent=1, allow_nan=False)
    with whole(file) as part:
        part.write_text(text + "\n", encoding="utf-8")


def append_jsonl(file: Path, row: Mapping[str, Any]) -> None:
    """Append one row and push it to disk."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(finite(row), allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def finite(value: Any) -> Any:
    """The same structure with NaN and infinities as None and paths as text, fit for JSON."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def provenance(facts: RunFacts, **more: Any) -> dict[str, Any]:
    """Where scores come from: everything of a run that changes them."""
    of_run = asdict(facts)
    names = ("model", "revision", "dtype", "weights_sha256", "prompt_sha256", "context_tokens")
    names = (*names, "seed", "rope", "attention", "versions")
    chosen = {name: of_run[name] for name in names}
    return {**chosen, "data_sha256": facts.reference_sha256, **more}


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """All rows of a JSON Lines file that sce wrote; a torn last line is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def drop_rows_after(file: Path, step: int) -> None:
    """Rewrite records.jsonl without rows past `step`, which a resumed run will write again."""
    if not file.is_file():
        return
    kept = [json.dumps(row) + "\n" for row in read_jsonl(file) if row["step"] <= step]
    with whole(file) as part:
        part.write_text("".join(kept), encoding="utf-8")


def origin_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two provenances differ in that changes scores of one model, in words for a warning.

    What only one of them knows differs. Of RoPE what is in use counts, not what it was before.
    """
    flat = [{**origin, **rope_in_use(origin.get("rope") or {})} for origin in (one, other)]
    names = {"data": "data_sha256", "prompt": "prompt_sha256", "length": "context_tokens"}
    found = []
    for name in (*names, "rope_theta", "rope_scaling", "dtype"):
        values = [origin.get(names.get(name, name)) for origin in flat]
        if values[0] != values[1]:
            shown = " and ".join("unknown" if v is None else str(v) for v in values)
            found.append(name if name in ("data", "prompt") else f"{name} ({shown})")
    return found
