"""The real default model: scores checked from outside, its shipped reference, that it learns."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from runs import configured
from sce.assemble import assemble
from sce.config import CONF, ScoreConfig, TrainConfig
from sce.errors import InputError
from sce.headset import average
from sce.records import HeadScores, read_jsonl
from sce.score import score
from sce.train import train

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
CHECK = Path(__file__).with_name("independent_check.py")
SHIPPED = sorted((CONF / "reference" / "smollm2-sample").glob("*/*.json"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def scored(*overrides: str) -> list[Path]:
    return score(configured("score", ScoreConfig, list(overrides)))


@pytest.mark.data
@pytest.mark.parametrize("mode", ["teacher_forced", "greedy"])
def test_all_270_heads_agree_with_an_independent_check_on_real_questions(
    mode, nq_file, real_source, tmp_path
):
    scored(
        f"data.train.path={nq_file}",
        "data.num_documents=3",
        "data.distractors=bm25",
        "data.num_reference=5",
        "model.dtype=float32",
        "max_new_tokens=8",
        f"mode={mode}",
        "out=heads.json",
        "audit=audit.jsonl",
    )
    scores = HeadScores.load(tmp_path / "heads.json")
    assert scores.shape == (30, 9)
    assert scores.scores.max() > 0
    arguments = [real_source.location, "audit.jsonl", mode, "8"]
    result = subprocess.run(
        [sys.executable, str(CHECK), *arguments], capture_output=True, text=True, timeout=600
    )
    assert result.stdout == "1350 scores compared, 0 differ\n", result.stderr[-500:]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_the_shipped_reference_is_of_this_model_prompt_and_data(file, real_source):
    reference = HeadScores.load(file)
    task = file.parent.name
    config = configured("score", ScoreConfig, [f"data={task}"])
    parts = assemble(config, ["reference"], on_gpu=False)
    assert reference.provenance["weights_sha256"] == real_source.sha256
    assert reference.provenance["prompt_sha256"] == parts.encoder.prompt_sha256(task)
    assert reference.provenance["data_sha256"] == parts.splits["reference"].sha256
    assert reference.provenance["context_tokens"] == parts.splits["reference"].max_prompt_tokens
    assert reference.num_examples == len(parts.splits["reference"].encoded)


def assert_tuned(reference: HeadScores, change: float = 0.01) -> None:
    """A reference names the adapters it was made of, and differs from the untuned model."""
    members = reference.provenance["members"]
    assert len({member["adapter_sha256"] for member in members}) >= 2
    assert all(member["adapter_sha256"] for member in members)
    assert len({member["seed"] for member in members}) == len(members)
    assert reference.base_scores is not None
    assert np.abs(reference.scores - reference.base_scores).max() >= change
    assert reference.per_example is not None
    assert reference.per_example.shape == (reference.num_examples, *reference.shape)
    assert {"seed_against_seed", "split_half"} <= set(reference.reliability)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_the_shipped_reference_was_made_by_tuning(file):
    # What little eight steps teach of SummHay shows in some of the scores alone (its card).
    assert_tuned(HeadScores.load(file), change=0 if file.parent.name == "summhay" else 0.01)


def test_few_steps_on_real_data_teach_the_model_and_move_its_heads(tmp_path):
    small = ["data.num_val=8", "data.num_reference=8", "max_new_tokens=6"]
    steps = ["trainer.max_steps=4", "val_every=4", "optimizer.lr=2e-3", "optimizer.warmup_steps=0"]
    given = [*small, *steps, "seed=5", "run_dir=run", "data.concept=real", "reference=none"]
    run = train(configured("train", TrainConfig, [*given, "logger=none"]), given)
    rows = read_jsonl(run / "records.jsonl")
    assert rows[-1]["answer_nll"] < 0.8 * rows[0]["answer_nll"]
    before, after = (HeadScores.load(run / "heads" / f"step-{n:06d}.json") for n in (0, 4))
    assert np.abs(after.scores - before.scores).max() >= 0.01
    with pytest.raises(InputError, match="differently tuned"):
        average(["a", "b"], [before, before], before, tau=0.1, k=20)


def test_a_reference_that_nobody_tuned_would_be_found_out():
    same = HeadScores.load(SHIPPED[0])
    with pytest.raises(AssertionError):
        assert_tuned(replace(same, scores=same.base_scores))
    with pytest.raises(AssertionError):
        assert_tuned(replace(same, provenance={**same.provenance, "members": []}))
