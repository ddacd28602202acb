"""Typos and wrong values: one line that names the key and the nearest, exit code 2, no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from runs import configured
from sce.commands import ScoreConfig, TrainConfig
from sce.errors import InputError
from sce.one_line import one_line_errors


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
        ("optimizer.lr=-1", "optimizer.lr must be > 0 and finite, got -1.0"),
        ("model=smolm2", "model=smolm2: no such option; did you mean 'smollm2'?"),
        ("data=", "data=: no such option; choose from: mdqa"),
        ("data=3", "name an option of the group, as in data=mdqa"),
        ("seed", "cannot read seed: missing EQUAL at '<EOF>'; an override is key=value"),
        ("data.haystack=[a=b]", """a value with '=' in it has quotes: 'key=["a=b"]'"""),
        ("run_dir=ö\nö", "cannot read run_dir=ö ö: a character needs quotes"),
        ("callbacks.x=a{", "cannot read callbacks.x=a{: extraneous input '{'"),
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
    result = sce(*override.split(" "))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("sce: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.betas=[0.9,1.0]", r"optimizer\.betas must lie in \[0, 1\), got \[0\.9, 1\.0\]"),
        ("optimizer.betas=[-0.1,0.9]", r"optimizer\.betas must lie in \[0, 1\)"),
        ("optimizer.betas=[0.9]", r"optimizer\.betas must be two numbers"),
        ("optimizer.eps=-1", r"optimizer\.eps must be > 0 and finite, got -1\.0"),
        ("optimizer.lr=nan", r"optimizer\.lr must be > 0 and finite, got nan"),
        ("optimizer.weight_decay=inf", r"optimizer\.weight_decay must be >= 0 and finite"),
        ("seed=99999999999", r"seed must lie in 0\.\.4294967295, got 99999999999"),
        ("seed=-1", r"seed must lie in 0\.\.4294967295, got -1"),
        ("trainer.precision=16-mixed", r"16-mixed: float16 is too narrow.* or take bf16-mixed"),
        ("trainer.precision='16'", r"trainer\.precision=16: float16 is too narrow"),
        ("callbacks.heatmap=false", r"callbacks\.heatmap=False: give null to leave it out"),
    ],
)
def test_a_value_out_of_range_is_refused(override, message):
    with pytest.raises(InputError, match=message):
        configured("train", TrainConfig, [override])


def test_ctrl_c_outside_of_training_is_one_line(capsys):
    @one_line_errors
    def command():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "sce: stopped by Ctrl-C\n"


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


@pytest.mark.parametrize("given", ["debug=true", "debug=1", "debug=Yes"])
def test_debug_shows_the_traceback_of_a_user_error(given, monkeypatch):
    @one_line_errors
    def command():
        raise InputError("no")

    monkeypatch.setattr(sys, "argv", ["sce", "seed=1", given])
    with pytest.raises(InputError):
        command()
    monkeypatch.setattr(sys, "argv", ["sce", given, "debug=false"])
    with pytest.raises(SystemExit):
        command()


def test_home_is_expanded_wherever_a_path_is_given():
    given = [
        "out='~/h/'",
        "data=needle",
        "data.haystack=['~/a.txt', 'b~/c']",
        "adapter='~root/run/adapter'",
    ]
    config = configured("score", ScoreConfig, given)
    home = Path("~").expanduser()
    assert config.out == f"{home}/h/"  # a folder's
    assert config.adapter == f"{Path('~root').expanduser()}/run/adapter"
    assert config.data.haystack == [f"{home}/a.txt", "b~/c"]


def test_a_figure_that_needs_a_reference_is_refused_without_one():
    early = ["callbacks=recall_early_stopping", "reference=none"]
    message = r"early_stopping\.metric=heads/recall_learned needs a reference"
    with pytest.raises(InputError, match=message):
        configured("train", TrainConfig, early)
    configured("train", TrainConfig, [*early, "callbacks.early_stopping.metric=val/f1"])


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


def test_a_callback_that_is_none_is_named_wherever_it_stands():
    early = ["callbacks=recall_early_stopping", "callbacks.early_stopping.metric=val/f1"]
    with pytest.raises(InputError, match=r"callbacks\.mine=x: give null to leave it out"):
        configured("train", TrainConfig, [*early, "callbacks.adapter=null", "+callbacks.mine=x"])
