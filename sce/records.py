"""What a run leaves behind: head scores, rows, and the facts that identify them (numpy only).

HeadScores JSON has schema `sce.heads/1`; the example-level scores lie beside it in an .npz.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sce.errors import InputError

SCHEMA = "sce.heads/1"


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
    """Longest prompt of the reference split, in the model's tokens."""
    shape: tuple[int, int]
    """(layers, query heads a layer) of the model."""
    study: str | None = None
    mix: str | None = None
    rope: Mapping[str, float | None] = field(default_factory=dict)
    """theta in use and the model's own, `{"theta": ..., "was": ...}`."""
    model: str = ""
    dtype: str = ""
    """Storage type of the base model while it was tuned or scored."""
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What differs between the run and its reference without being wrong."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change when the run is resumed, in plain types."""
        data = ("train_sha256", "eval_sha256", "reference_sha256", "prompt_sha256")
        names = ("weights_sha256", *data, "seed", "scorer", "mode", "match")
        plain = {name: getattr(self, name) for name in names}
        return {**plain, "rope_theta": self.rope.get("theta")}


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
        """Write the JSON, and the per-example scores beside it as .npz; never half a file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        per_example = None
        if self.per_example is not None:
            per_example = f"{file.stem}.npz"
            with tempfile.NamedTemporaryFile(
                dir=file.parent, suffix=".npz", delete=False
            ) as temporary:
                np.savez_compressed(temporary, scores=self.per_example)
            Path(temporary.name).chmod(0o644)
            Path(temporary.name).replace(file.with_name(per_example))
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
    def load(cls, file: Path) -> "HeadScores":
        """Read a HeadScores JSON and, where it is there, its .npz.

        Raises:
            InputError: no such file, not this schema, or scores of the wrong shape.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA:
                raise InputError(f"{file}: schema {content.get('schema')!r}, not {SCHEMA}")
            scores = np.asarray(content["scores"], dtype=np.float64)
            shape = (content["num_layers"], content["num_heads"])
            base = content.get("base_scores")
            head_scores = cls(
                scorer=content["scorer"],
                mode=content["mode"],
                match=content["match"],
                scores=scores,
                num_examples=int(content["num_examples"]),
                per_example=_read_npz(file, content.get("per_example")),
                provenance=dict(content.get("provenance") or {}),
                base_scores=None if base is None else np.asarray(base, dtype=np.float64),
                reliability=dict(content.get("reliability") or {}),
            )
        except FileNotFoundError:
            raise InputError(f"{file}: no such file") from None
        except (KeyError, TypeError, ValueError, AttributeError, OSError, BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: not a HeadScores file ({error!r})") from None
        if scores.shape != shape or (base is not None and head_scores.base_scores.shape != shape):  # type: ignore[union-attr]
            raise InputError(f"{file}: scores of shape {scores.shape}, but it says {shape}")
        return head_scores


def _read_npz(file: Path, name: str | None) -> np.ndarray | None:
    if name is None or not (file.parent / Path(name).name).is_file():
        return None
    with np.load(file.parent / Path(name).name, allow_pickle=False) as arrays:
        return arrays["scores"].astype(np.float64)


def _rounded(scores: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 9) for value in row] for row in scores]


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; NaN becomes null."""
    text = json.dumps(finite(content), indent=1, allow_nan=False)
    with tempfile.NamedTemporaryFile(
        "w", dir=file.parent, suffix=".tmp", delete=False, encoding="utf-8"
    ) as temporary:
        temporary.write(text + "\n")
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(file)


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
    names = (
        "model",
        "dtype",
        "weights_sha256",
        "prompt_sha256",
        "context_tokens",
        "seed",
        "rope",
        "versions",
    )
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
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(file)
