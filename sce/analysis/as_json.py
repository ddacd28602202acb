"""JSON of whatever the analysis found: dataclasses, arrays, NaN as null.

The encoder asks for what it does not know and walks the rest by itself; a copy in plain types first
took longer than finding it all.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sce.records import finite


def as_json(value: Any, **options: Any) -> str:
    """The text of it; arrays rounded to 6 digits, NaN and infinities as null.

    Args:
        value: dataclasses, mappings, sequences, arrays, numbers and text, in one another.
        options: of json.dumps.
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False, **options)
    except ValueError:  # there is a NaN somewhere, which is rare
        plain = json.loads(json.dumps(value, default=_plain))
        return json.dumps(finite(plain), allow_nan=False, **options)


def _plain(value: Any) -> Any:
    """One level of what json does not know."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return np.round(value.astype(np.float64), 6).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON of {type(value).__name__}")
