"""Typos and wrong values: one line that names the key and the nearest, exit code 2, no torch."""

import subprocess
import sys

import pytest

from conftest import ROOT


def sce(*arguments, command="train"):
    return subprocess.run(
        [sys.executable, "-m", f"sce.{command}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=3", "unknown key 'sede'; did you mean 'seed'?"),
        ("+sede=3", "unknown key 'sede'; did you mean 'seed'?"),
        ("optimizer.lrr=3", "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        ("trainer.max_step=3", "did you mean 'trainer.max_steps'?"),
        (
            "optimizer.lr=abc",
            "optimizer.lr: Value 'abc' of type 'str' could not be converted to Float",
        ),
        ("optimizer.lr=-1", "optimizer.lr must be > 0, got -1.0"),
        ("model=smolm2", "model=smolm2: no such option; did you mean 'smollm2'?"),
        ("mode=x", "mode=x: choose from teacher_forced, greedy"),
        (
            "data.concept=high data.context=symbolic",
            "there is no cell (concept=high, context=symbolic)",
        ),
        ("data.context_tokens=0", "data.context_tokens must be >= 1, got 0"),
        ("trainer.precision=bf16-true", "would cast the adapter"),
        ("resume=true", "resume=true needs run_dir"),
    ],
)
def test_a_wrong_override_is_one_line_and_exit_code_2(override, message):
    result = sce(*override.split())
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("sce: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "score", "headset", "write"])
def test_help_lists_groups_and_examples_and_imports_no_torch(command):
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('sce.{command}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "Examples" in result.stdout
    assert f"python -m sce.{command}" in result.stdout
    if command in ("train", "score"):
        assert "model: llama3_8b, mistral_7b, qwen3_8b, smollm2, smollm2_hub" in result.stdout


def test_debug_shows_the_traceback_of_a_user_error():
    result = sce("mode=x", "debug=true")
    assert "Traceback" in result.stderr
    assert result.returncode != 0


def test_a_foreign_callbacks_package_is_named(tmp_path):
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("")
    result = subprocess.run(
        [sys.executable, "-m", "sce.train"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert result.returncode == 2
    assert str(tmp_path / "callbacks") in result.stderr
