"""Score files read with suspicion: what may be wrong with one is told in a line (numpy only).

No error here names the file, which the caller does. Heads are named "layer-head", zero-based.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import repr as shown
from typing import Any
from unicodedata import category
from zipfile import BadZipFile

import numpy as np

from sce.errors import InputError

Kind = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words, and whether one is."""
AGREEMENT = 1e-6
"""How far a mean over examples may lie from the score beside it, or its share of a score > 1."""


def read_text(file: Path) -> str:
    """The text of a file, gunzipped where its name ends in .gz.

    Raises:
        InputError: it is not there, cut off, or not text in UTF-8.
    """
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")
    except FileNotFoundError:
        raise InputError("no such file") from None
    except IsADirectoryError:
        raise InputError("a folder, not a file") from None
    except EOFError:
        raise InputError("truncated: its gzip stream breaks off; copy or make it again") from None
    except UnicodeDecodeError:
        raise InputError("not text in UTF-8") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"cannot be read ({error})") from None


def parse_json(text: str) -> Any:
    """What a JSON text holds; NaN and infinities are let by, for `number` to find.

    Raises:
        InputError: it is empty, cut off, not JSON, or has a key twice in one object.
    """
    if not text.strip():
        raise InputError("the file is empty")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        whole = text.strip()
        closing = {"{": "}", "[": "]"}.get(whole[:1])
        at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(text.rstrip())
        if closing and (at_end or not whole.endswith(closing)):
            line = len(whole.splitlines())
            raise InputError(
                f"truncated: its JSON breaks off in line {line}; copy or make it again"
            ) from None
        raise InputError(f"not JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice!r} stands in it twice")
    return found


def number(value: Any, layer: int, head: int) -> float:
    """A head's score as a float.

    Raises:
        InputError: it is null, text, true or false, NaN or infinite; names the head.
    """
    if is_number(value):
        return float(value)
    said = {type(None): "null", int: "inf"}.get(type(value)) or repr(value)[:40]
    raise InputError(f"head {layer}-{head} has the score {said}, which is no finite number")


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # of a whole number with hundreds of digits
        return False


def is_line(value: Any) -> bool:
    """Whether it is text that a message can quote: no control character, half a surrogate pair."""
    return isinstance(value, str) and not {"Cc", "Cs", "Zl", "Zp"} & set(map(category, value))


def score_map(rows: Any, shape: tuple[int, int]) -> np.ndarray:
    """Scores of all heads, [layers, heads] float64, from JSON lists.

    Raises:
        InputError: they are not of `shape`, or a score is no finite number (names the head).
    """
    layers, heads = shape
    if not isinstance(rows, list) or len(rows) != layers:
        found = f"{len(rows)} layers" if isinstance(rows, list) else "no list of layers"
        raise InputError(f"scores of {found}, but its shape is {layers} layers x {heads} heads")
    for layer, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != heads:
            found = f"{len(row)} heads" if isinstance(row, list) else "no list of heads"
            raise InputError(
                f"layer {layer} has {found}, but its shape is {layers} layers x {heads} heads"
            )
    if {type(value) for row in rows for value in row} == {float}:
        found = np.array(rows)
        if np.isfinite(found).all():
            return found
    return np.array([[number(v, la, h) for h, v in enumerate(r)] for la, r in enumerate(rows)])


def beside(file: Path, name: Any) -> Path | None:
    """The file of per-example scores that a JSON names, in its own folder; None if it names none.

    The JSON may have been handed on alone: None if there is no such file either, and no error.

    Raises:
        InputError: `name` is neither text nor null.
    """
    if name is not None and not is_line(name):
        raise InputError(f"per_example is {shown(name)}, not a file name")
    try:
        found = None if name is None else file.parent / Path(name).name
        return found if found is not None and found.is_file() else None
    except OSError:  # a name longer than any file's
        return None


def read_per_example(file: Path, scores: np.ndarray, num_examples: int) -> np.ndarray:
    """Per-example scores from an .npz, [examples, layers, heads] float64.

    A row that is NaN throughout is an example that the scorer did not keep; it is left out of the
    mean. `num_examples` counts all rows, or those kept.

    Raises:
        InputError: it is no such file, of another shape than `scores` [layers, heads], partly not
            finite, or its mean over the kept rows is not `scores`; names the .npz.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            rows = arrays["scores"]
        if rows.dtype.kind not in "fiu":
            raise ValueError(f"of type {rows.dtype}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise InputError(f"{file.name} holds no per-example scores ({error})") from None
    except (BadZipFile, zlib.error):
        raise InputError(f"{file.name} is no whole .npz; copy or make it again") from None
    if rows.ndim != 3 or rows.shape[1:] != scores.shape:
        raise InputError(f"{file.name} has shape {rows.shape}, not (examples, *{scores.shape})")
    rows = rows.astype(np.float64)
    kept = rows[~np.isnan(rows).all(axis=(1, 2))]
    if num_examples not in (len(rows), len(kept)):
        raise InputError(
            f"{file.name} has {len(rows)} examples, but num_examples is {num_examples}"
        )
    _require_agreement(file.name, kept, scores)
    return rows


def _require_agreement(name: str, kept: np.ndarray, scores: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(kept))
    if len(bad):
        _, layer, head = bad[0]
        raise InputError(f"{name}: head {layer}-{head} has a score that is no finite number")
    if not len(kept):
        raise InputError(f"{name}: no example was kept, but there are scores")
    means = kept.mean(axis=0)
    apart = np.argwhere(np.abs(means - scores) > AGREEMENT * np.maximum(1, np.abs(scores)))
    if len(apart):
        layer, head = apart[0]
        raise InputError(
            f"head {layer}-{head} has the score {scores[layer, head]:.6g}, but "
            f"{means[layer, head]:.6g} on average over the examples in {name}: one of the two "
            "was edited or belongs to another set"
        )


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(each is None or fits(each) for each in value.values())
    )


def _is_source(value: Any) -> bool:
    """A file; of an average one a member, null for a member that was not imported."""
    each = value if isinstance(value, list) else [value]
    return all(name is None or is_line(name) for name in each)


_LINE: Kind = ("a line of text", is_line)
_WHOLE: Kind = ("a whole number", lambda value: type(value) is int)
_NUMBER: Kind = ("a finite number", is_number)
_NUMBERS: Kind = ("an object of finite numbers", _each(is_number))
_ADAPTER = {
    **dict.fromkeys(("seed", "step"), _WHOLE),
    **dict.fromkeys(("concept", "context", "train_sha256"), _LINE),
}
_MEMBER = {**_ADAPTER, **dict.fromkeys(("adapter_sha256", "file_sha256", "imported_from"), _LINE)}
_PROVENANCE: dict[str, Kind] = {
    **dict.fromkeys(("model", "revision", "dtype", "split", "run"), _LINE),
    **dict.fromkeys(("weights_sha256", "data_sha256", "prompt_sha256"), _LINE),
    **dict.fromkeys(("adapter_sha256", "file_sha256"), _LINE),
    **dict.fromkeys(("context_tokens", "num_offered", "seed", "step"), _WHOLE),
    "rope": _NUMBERS,
    "versions": ("an object of lines of text", _each(is_line)),
    "imported_from": ("a line of text or a list of them", _is_source),
    "members": ("a list", lambda value: isinstance(value, list)),
}
_RELIABILITY: dict[str, Kind] = {
    **{"tau": _NUMBER, "k": _WHOLE, "num_pairs": _WHOLE},
    **{"seed_against_seed": _NUMBERS, "split_half": _NUMBERS},
}


def checked_notes(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Provenance and reliability of a HeadScores JSON, {} where it has none.

    A null in them is what is not known; keys that are not ours may hold anything.

    Raises:
        InputError: one is no object, or a key (a member's and the adapter's too) holds what no file
            of ours does; names the key.
    """
    origin, agreed = (
        {} if content.get(name) is None else content[name] for name in ("provenance", "reliability")
    )
    _require_kinds("reliability", agreed, _RELIABILITY)
    _require_kinds("provenance", origin, _PROVENANCE)
    if origin.get("adapter") is not None:
        _require_kinds("provenance.adapter", origin["adapter"], _ADAPTER)
    for index, member in enumerate(origin.get("members") or []):
        _require_kinds(f"provenance.members[{index}]", member, _MEMBER)
    return origin, agreed


def _require_kinds(where: str, found: Any, kinds: Mapping[str, Kind]) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{where} is {shown(found)}, not a JSON object")
    for key, (words, fits) in kinds.items():
        if found.get(key) is not None and not fits(found[key]):
            raise InputError(f"{where}: {key} is {shown(found[key])}, not {words}")
