"""Runs that begin alike share their step 0, and nothing in what they leave tells."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from runs import run_train
from sce.errors import InputError
from sce.module import SceModule
from sce.records import HeadScores, read_jsonl

TIMES = ("seconds", "time", "run")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def what_is_left(run):
    rows = read_jsonl(run / "records.jsonl")
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    heads = [HeadScores.load(file) for file in sorted((run / "heads").glob("*.json"))]
    said = [file.read_text() for file in sorted((run / "predictions").glob("*.jsonl"))]
    return rows, heads, said


def assert_same(one, other):
    (rows, heads, said), (rows_2, heads_2, said_2) = what_is_left(one), what_is_left(other)
    assert rows == rows_2
    assert said == said_2
    for first, second in zip(heads, heads_2, strict=True):
        assert np.array_equal(first.per_example, second.per_example)
        origins = [{**s.provenance, "run": None} for s in (first, second)]
        assert origins[0] == origins[1]


def test_a_run_that_reads_its_step_0_leaves_what_it_would_have_left(peaky_folder, monkeypatch):
    decoded = []
    step = SceModule.validation_step

    def counted(self, batch, *args):
        outcomes = step(self, batch, *args)
        decoded.append((self.global_step, len(outcomes)))
        return outcomes

    monkeypatch.setattr(SceModule, "validation_step", counted)
    alone = run_train(peaky_folder, "run_dir=alone", "seed=1")
    run_train(peaky_folder, "run_dir=first", "untuned=u.npz")
    assert sum(n for at, n in decoded if at == 0) > 0
    decoded.clear()
    second = run_train(peaky_folder, "run_dir=second", "seed=1", "untuned=u.npz")
    assert sum(n for at, n in decoded if at == 0) == 0
    assert sum(n for at, n in decoded if at > 0) > 0
    assert_same(alone, second)


def test_what_another_run_wrote_meanwhile_is_no_step_0_of_this_one(peaky_folder, monkeypatch):
    """Both began without the file; the other, of other examples, was first."""
    configure = SceModule.configure_model

    def meanwhile(self):
        configure(self)
        if not Path("u.npz").exists():
            shutil.copy("theirs.npz", "u.npz")

    run_train(peaky_folder, "run_dir=first", "untuned=theirs.npz", "data.num_val=5")
    monkeypatch.setattr(SceModule, "configure_model", meanwhile)
    with pytest.raises(InputError, match=r"untuned=u.npz: written for another eval_sha256"):
        run_train(peaky_folder, "run_dir=second", "untuned=u.npz")


def test_a_file_that_could_not_be_written_is_refused_before_anything_is(peaky_folder, tmp_path):
    Path("file").write_text("")
    for option in ("untuned=file/u.npz", "run_dir=file/run"):
        with pytest.raises(InputError, match=rf"{option}: nothing can be written in the folder"):
            run_train(peaky_folder, option)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_other_examples_are_refused_before_anything_is_written(peaky_folder, tmp_path):
    run_train(peaky_folder, "run_dir=first", "untuned=u.npz")
    with pytest.raises(InputError, match=r"untuned=u.npz: written for another eval_sha256"):
        run_train(peaky_folder, "run_dir=second", "untuned=u.npz", "data.num_val=5")
    assert not (tmp_path / "second").exists()
