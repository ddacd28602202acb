"""Step 0 in a file: what is read is what was written, and only where it belongs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sce.errors import InputError
from sce.records import RunFacts
from sce.untuned import Untuned
from sce.validation import Answer, Place

FACTS = RunFacts(
    **{"run": "r", "run_dir": Path("r"), "seed": 0, "task": "mdqa", "concept": "high"},
    **{"context": "high", "train_sha256": "t", "eval_sha256": "e", "reference_sha256": "f"},
    **{"prompt_sha256": "p", "weights_sha256": "w", "scorer": "copy", "mode": "teacher_forced"},
    **{"match": "exact", "tau": 0.1, "k": 2, "context_tokens": 9, "shape": (2, 3)},
    versions={"torch": "2"},
)
KEY = ("copy", "teacher_forced")
ANSWERS = [
    Answer(Place("a", 0.25, 7), "forty two", ("42", "forty two"), 1.5, 3),
    Answer(Place("b", 0.5, 9), "", ("no",), float("inf"), 1),
]
SCORED = [
    (Place("c", 0.1, 5), {KEY: torch.tensor([[0.0, 0.5, 1.0], [1 / 3, 0.1, float("nan")]])}),
    (Place("d", 0.9, 6), {KEY: torch.zeros(2, 3)}),
]


def test_what_is_read_is_what_was_written(tmp_path):
    untuned = Untuned.of(tmp_path / "new" / "u.npz", FACTS, max_new_tokens=8)
    assert not untuned.is_known
    untuned.write(ANSWERS, SCORED)
    again = Untuned.of(tmp_path / "new" / "u.npz", replace(FACTS, seed=3), max_new_tokens=8)
    answers, scored = again.read()
    assert answers == ANSWERS
    assert [place for place, _ in scored] == [place for place, _ in SCORED]
    for (_, found), (_, written) in zip(scored, SCORED, strict=True):
        assert torch.equal(found[KEY].nan_to_num(-1), written[KEY].nan_to_num(-1))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["u.npz"]


def test_no_example_of_either_split_is_a_file_all_the_same(tmp_path):
    untuned = Untuned.of(tmp_path / "u.npz", FACTS)
    untuned.write([], [])
    assert untuned.read() == ([], [])


@pytest.mark.parametrize(
    ("facts", "settings", "named"),
    [
        (replace(FACTS, eval_sha256="x"), {}, "eval_sha256"),
        (replace(FACTS, weights_sha256="x"), {}, "weights_sha256"),
        (replace(FACTS, match="surface"), {}, "match"),
        (replace(FACTS, versions={"torch": "3"}), {}, "versions"),
        (replace(FACTS, rope={"theta": 5.0, "was": 1.0}), {}, "rope_theta"),
        (FACTS, {"batch.eval": 4}, "batch.eval"),
    ],
)
def test_another_runs_step_0_is_refused_and_what_differs_is_named(facts, settings, named, tmp_path):
    file = tmp_path / "u.npz"
    Untuned.of(file, FACTS, **{"batch.eval": 8}).write(ANSWERS, SCORED)
    with pytest.raises(InputError, match=named) as error:
        Untuned.of(file, facts, **({"batch.eval": 8} | settings))
    assert str(file) in str(error.value)


def test_a_file_of_something_else_is_one_line(tmp_path):
    file = tmp_path / "u.npz"
    for content in (b"", b"PK\x03\x04 torn", b"no archive"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="no file that a run wrote"):
            Untuned.of(file, FACTS)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(InputError, match="no file that a run wrote"):
        Untuned.of(file, FACTS)
