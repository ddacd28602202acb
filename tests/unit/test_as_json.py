"""JSON of what the analysis found."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from sce.analysis.as_json import as_json


@dataclass(frozen=True)
class Inner:
    values: np.ndarray


@dataclass(frozen=True)
class Outer:
    name: Path
    inner: tuple[Inner, ...]
    counts: MappingProxyType
    share: float | None = None


def outer(**changes) -> Outer:
    inner = Inner(np.array([[0.12345678, 1.0]], dtype=np.float32))
    given = {"name": Path("a/b"), "inner": (inner,), "counts": MappingProxyType({"k": np.int64(3)})}
    return Outer(**given | changes)


def test_dataclasses_arrays_and_numbers_of_numpy_are_plain():
    assert json.loads(as_json(outer(share=np.float64(0.25)))) == {
        "name": "a/b",
        "inner": [{"values": [[0.123457, 1.0]]}],
        "counts": {"k": 3},
        "share": 0.25,
    }


@pytest.mark.parametrize("number", [float("nan"), float("-inf"), np.float64("nan")])
def test_what_is_no_number_is_null_wherever_it_is(number):
    found = json.loads(as_json(outer(share=number, inner=(Inner(np.array([number, 2.0])),))))
    assert found["share"] is None
    assert found["inner"] == [{"values": [None, 2.0]}]


def test_what_it_does_not_know_is_an_error_and_no_text():
    with pytest.raises(TypeError, match="no JSON of set"):
        as_json({"heads": {1, 2}})


def test_the_caller_says_how_it_is_written():
    assert as_json({"a": ["é", 1]}, ensure_ascii=False, separators=(",", ":")) == '{"a":["é",1]}'
