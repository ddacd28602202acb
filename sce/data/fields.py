"""Typed reads of a row's fields: what is missing or of another type is one `InputError`.

A null counts as missing, since Parquet writes one for every field that a row lacks. Whole numbers
pass for ids; nothing else is converted.
"""

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from sce.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")


def as_text(value: Any, name: str, default: str | None = None) -> str:
    """A text, which must not be blank unless the field has a default."""
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _wrong(value, name, "a text")
    if default is None and not value.strip():
        raise InputError(f"the {name} is empty")
    if _SURROGATE.search(value):
        raise InputError(f"the {name} is no valid Unicode (a lone surrogate)")
    return value


def as_id(value: Any, name: str, default: str | None = None) -> str:
    """A text that is not blank, or a whole number as one."""
    if value is None and default is not None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _wrong(value, name, "a text or a whole number")
    return as_text(value, name)


def as_number(value: Any, name: str) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(value, name, "a whole number")
    return value


def as_flag(value: Any, name: str) -> bool:
    """True or false; false where it is missing."""
    if value is not None and not isinstance(value, bool):
        raise _wrong(value, name, "true or false")
    return bool(value)


def as_list(value: Any, name: str, of: str) -> list[Any]:
    """A list; the message says of what."""
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, name, f"a list of {of}")
    return list(value)


def as_objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    """A list of objects."""
    items = as_list(value, name, "objects")
    for item in items:
        if not isinstance(item, Mapping):
            raise _wrong(item, name, "a list of objects")
    return items


def as_texts(value: Any, name: str) -> list[str]:
    """A list of texts, blank where one is null; none where it is missing."""
    if value is None:
        return []
    return [as_text(item, name, "") for item in as_list(value, name, "texts")]


def as_answers(value: Any, name: str = "answers", *, optional: bool = False) -> tuple[str, ...]:
    """A list of texts, none of them blank; at least one unless it is optional."""
    if optional and value is None:
        return ()
    answers = as_list(value, name, "texts")
    if not answers and not optional:
        raise InputError(f"{name} must be a list of texts, got an empty one")
    if any(not isinstance(answer, str) or not answer.strip() for answer in answers):
        raise InputError(f"{name} must be texts and not blank, got {reprlib.repr(answers)}")
    return tuple(as_text(answer, name) for answer in answers)


def _wrong(value: Any, name: str, wanted: str) -> InputError:
    got = "nothing" if value is None else reprlib.repr(value)
    return InputError(f"{name} must be {wanted}, got {got}")
