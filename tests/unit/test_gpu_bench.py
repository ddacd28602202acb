"""The script for a GPU runs on a tiny model, with nothing installed that a bare image lacks."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

from conftest import ROOT

BENCH = ROOT / "tests" / "bench"
CPU = torch.device("cpu")
# What `sce` depends on beyond torch, transformers, peft and numpy, and more than a bare image has.
DATA = ("bm25s", "datasets", "gguf", "hydra", "omegaconf", "rouge_score", "sentencex", "wandb")
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics")
FEW = ("beartype", "jaxtyping", "matplotlib", "pandas", "rich", "sklearn", "trl")
# As if they were not installed: neither imported nor found.
BLOCK = """
import sys
from importlib.machinery import PathFinder
names, find = set({names!r}), PathFinder.find_spec
def blocked(cls, name, path=None, target=None):
    return None if name.split(".")[0] in names else find(name, path, target)
PathFinder.find_spec = classmethod(blocked)
sys.path[:0] = [{root!r}, {bench!r}]
"""
RUN = "import runpy; sys.argv = {argv!r}; runpy.run_path({script!r}, run_name='__main__')"


def without(names, program):
    """Run a program in a process that cannot import `names`."""
    blocked = BLOCK.format(names=names, root=str(ROOT), bench=str(BENCH))
    command = [sys.executable, "-W", "ignore", "-c", blocked + program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def checks():
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(BENCH))
    yield importlib.import_module("gpu_checks")
    patch.undo()


@pytest.fixture(scope="module")
def gpu(checks):
    return importlib.import_module("gpu")


@pytest.fixture(scope="module")
def gpu_figures(checks):
    return importlib.import_module("gpu_figures")


@pytest.mark.slow
def test_every_part_runs_with_what_a_bare_image_has(tmp_path):
    script, out = BENCH / "gpu.py", tmp_path / "gpu.json"
    argv = [str(script), "--tiny", "--json", str(out)]
    done = without(DATA + LIGHTNING + FEW, RUN.format(argv=argv, script=str(script)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not installed and not needed: bm25s, datasets" in done.stdout
    found = json.loads(out.read_text())
    assert found["failed"] == []
    assert found["check: strategies"] == "skipped (lightning is not installed)"
    assert found["check: liger"] == "skipped (liger-kernel is not installed)"
    assert any("flash_attention_2: skipped" in line for line in found["check: backends, bfloat16"])
    for part in ("training, selective", "training, full", "scoring"):
        assert [row["tokens"] for row in found[part]] == [64, 128]
    assert found["longest context"]["longest"] == 256
    assert found["longest context, nf4"]["longest"] == 256
    assert set(found["decoding"]["s"]) == {"scores", "none", "generate"}
    assert all(row["gflops_per_token"] > 0 for row in found["training, full"])
    assert all(0 < row["share_of_a_training_hour"] < 1 for row in found["scoring"])


@pytest.mark.slow
def test_ddp_and_fsdp_are_compared_where_lightning_is_there_and_the_data_packages_are_not():
    program = "import gpu_checks, torch; print(gpu_checks.strategies(torch.device('cpu')))"
    done = without(DATA, program)
    assert done.returncode == 0, done.stderr
    assert "ddp within" in done.stdout
    assert "fsdp within" in done.stdout


def test_a_backend_that_scores_otherwise_is_found(checks, monkeypatch):
    honest = checks._scores

    def off(model, backend, device):
        scores = honest(model, backend, device)
        key = ("ov_write", "teacher_forced")
        if backend == "sdpa":
            scores[key] = scores[key] + 0.1 * scores[key].abs().max()
        return scores

    assert "sdpa: difference of at most" in checks.backends(CPU, torch.float32)[0]
    monkeypatch.setattr(checks, "_scores", off)
    with pytest.raises(RuntimeError, match="sdpa does not score as eager"):
        checks.backends(CPU, torch.bfloat16)


@pytest.mark.parametrize(
    ("key", "spoil", "message"),
    [
        (("ov_write", "teacher_forced"), lambda s: s * float("nan"), "not finite"),
        (("copy", "teacher_forced"), lambda s: s * float("nan"), "not finite"),
        # All the others score 0 under either backend.
        (("copy", "teacher_forced"), torch.zeros_like, "does not score as eager"),
    ],
)
def test_nan_and_the_heads_that_find_nothing_do_not_pass(checks, key, spoil, message):
    eager = {name: torch.zeros(4, 8, 8) for name in (("ov_write", "teacher_forced"), key)}
    eager["ov_write", "teacher_forced"][:] = 1.0
    if key[0] == "copy":
        eager[key][0, 0, :3] = 0.5
    assert "100.0% of argmaxes equal" in checks._compare("sdpa", eager, eager, torch.float32)
    found = {**eager, key: spoil(eager[key])}
    with pytest.raises(RuntimeError, match=message):
        checks._compare("sdpa", found, eager, torch.float32)


def test_strategies_that_train_otherwise_are_found(checks, monkeypatch):
    monkeypatch.setattr(
        checks, "_fit", lambda device, strategy: [1.0, 0.9 + 1e-3 * (strategy == "ddp")]
    )
    with pytest.raises(RuntimeError, match="losses differ: ddp within"):
        checks.strategies(CPU)


def test_fused_kernels_that_compute_something_else_are_found(checks, monkeypatch):
    assert checks.fused(CPU) == "skipped (liger-kernel is not installed)"
    monkeypatch.setattr(checks, "find_spec", lambda name: name)
    monkeypatch.setattr(checks.extras, "fuse", lambda model: None)
    assert checks.fused(CPU) == "losses 0.0e+00 apart, gradients 0.0e+00 of the largest"

    def off(model):
        model.model.norm.variance_epsilon = 1e-2

    monkeypatch.setattr(checks.extras, "fuse", off)
    with pytest.raises(RuntimeError, match="liger does not compute what the model does"):
        checks.fused(CPU)


def test_training_that_teaches_nothing_is_found(checks):
    assert "best head copies" in checks.learning(CPU)
    with pytest.raises(RuntimeError, match="did not teach"):
        checks.learning(CPU, steps=2)


def test_a_part_that_there_is_not_is_one_line():
    command = [sys.executable, str(BENCH / "gpu.py"), "--tiny", "--parts", "typo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("no such part: typo; there are ['check: back")


def test_a_part_that_fails_is_noted_and_leaves_the_rest_alone(gpu, gpu_figures, checks):
    bench = gpu.Bench(CPU, gpu_figures.TINY, gpu.time.perf_counter() + 60, checks.llama())
    found: dict = {"failed": []}
    bench.found = found
    gpu._run(bench, "scoring", 10, gpu_figures.scoring)  # no model was made
    gpu._run(bench, "matrix products", 10, gpu_figures.matrix_products)
    assert found["failed"] == ["scoring"]
    assert "the model was not made" in found["scoring"]["error"]
    assert found["matrix products"]["tflops"] > 0
    bench.end = 0
    gpu._run(bench, "decoding", 10, gpu_figures.decoding)
    assert found["decoding"] == {"skipped": "no time left"}
