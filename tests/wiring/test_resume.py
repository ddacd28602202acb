"""A run that was killed or told to stop, wherever it was, ends as if nothing had happened."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from callbacks import GracefulStop, RunCheckpoint, RunRecords, graceful_stop
from runs import run_score, run_train
from sce import parallel
from sce.checkpoint import SCHEMA, unpack
from sce.errors import InputError, StoppedBySignal
from sce.module import SceModule
from sce.records import read_jsonl
from sce.run_dir import choose_run_dir

# Two micro-batches a step, three steps an epoch, validations at 0, 2, 4, 6 and at the end.
OPTIONS = ("lora.dropout=0.1", "optimizer.lr=0.02", "trainer.max_steps=7", "data.num_train=12")
OPTIONS = (*OPTIONS, "logger=csv")


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        return run_train(tiny_folder, *OPTIONS, "run_dir=whole")


class Killed(BaseException):
    """What SIGKILL would leave, leaves this: nothing more is written."""


def cut(run, patch, owner, method: str, when, act, *, after: bool = False) -> None:
    """Run until `method` of `owner` is called for the first time that `when` holds, then act."""
    original = getattr(owner, method)
    done = []

    def interrupted(self, *args, **kwargs):
        due = not done and when(self, *args)
        done.extend([True] * due)
        if due and not after:
            act()
        result = original(self, *args, **kwargs)
        if due and after:
            act()
        return result

    with patch.context() as inner:
        inner.setattr(owner, method, interrupted)
        with pytest.raises((Killed, StoppedBySignal)):
            run()
    assert done


def kill() -> None:
    raise Killed


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def saved(run_dir: Path) -> dict:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(one: Path, other: Path) -> None:
    first, second = saved(one), saved(other)
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    moments = [run["optimizer_states"][0]["state"] for run in (first, second)]
    for name, state in moments[0].items():
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[key], moments[1][name][key])
    left_out = ("seconds", "time", "run")
    rows = [
        [
            {k: v for k, v in row.items() if k not in left_out}
            for row in read_jsonl(d / "records.jsonl")
        ]
        for d in (one, other)
    ]
    assert rows[0] == rows[1]
    assert schedules(first) == schedules(second)
    for folder in ("heads", "predictions", "curves", "figures"):
        files = [sorted((d / folder).glob("*")) for d in (one, other)]
        assert [f.name for f in files[0]] == [f.name for f in files[1]]
        for mine, theirs in zip(*files, strict=True):
            assert content(mine) == content(theirs), mine.name


def schedules(checkpoint: dict) -> list:
    """What the learning rate will be, and what callbacks hold but for the clock."""
    callbacks = {
        name: {key: value for key, value in state.items() if key != "seconds"}
        for name, state in checkpoint["callbacks"].items()
    }
    loop = checkpoint["loops"]["fit_loop"]
    return plain([checkpoint["lr_schedulers"], loop["state_dict"], callbacks])


def plain(value):
    """Tensors and arrays as lists, which compare as a whole."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def content(file: Path):
    """What a file says, without what tells runs apart."""
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files}
    if file.suffix == ".json":
        left_out = ("provenance", "run")
        return {k: v for k, v in json.loads(file.read_text()).items() if k not in left_out}
    return file.read_text() if file.suffix == ".jsonl" else None


def at_step(step: int):
    return lambda module, *_: module.global_step == step


def in_validation(step: int, batch: int = 1):
    """Of the `batch`-th batch of the validation at `step`."""
    return lambda module, _, index, *rest: module.trainer.global_step == step and index == batch - 1


CUTS = {
    "killed between validations": (SceModule, "optimizer_step", at_step(3), kill),
    "stopped at the second validation": (SceModule, "optimizer_step", at_step(3), terminate),
    "killed in the second validation": (SceModule, "validation_step", in_validation(4), kill),
    "stopped in the first validation": (SceModule, "validation_step", in_validation(2), terminate),
    "stopped in the second validation": (SceModule, "validation_step", in_validation(4), terminate),
    "stopped in the last validation": (SceModule, "validation_step", in_validation(7), terminate),
    "killed between the row and the checkpoint": (
        RunCheckpoint,
        "on_validation_end",
        lambda _, trainer, module: module.global_step == 4,
        kill,
    ),
    "killed before the last row": (
        RunRecords,
        "on_validation_end",
        lambda _, trainer, module: module.global_step == 7,
        kill,
    ),
}


def test_it_goes_on_twice_from_the_end_of_an_epoch(tiny_folder, monkeypatch):
    """Three steps an epoch: killed after steps 5 and 8, it goes on from 3 and from 6."""
    options = (*OPTIONS, "trainer.max_steps=10", "val_every=10", "save_every=3")

    def run(name, *more):
        return run_train(tiny_folder, *options, f"run_dir={name}", *more)

    whole = run("unparted")
    for step, more in ((5, ()), (8, ("resume=true",))):
        at = (SceModule, "optimizer_step", at_step(step), kill)
        cut(lambda more=more: run("parted", *more), monkeypatch, *at)
        assert saved(Path("parted"))["global_step"] == step - 2
    assert_same(whole, run("parted", "resume=true"))


@pytest.mark.parametrize("cut_at", CUTS)
def test_it_goes_on_to_the_bit(whole, tiny_folder, monkeypatch, cut_at):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "run_dir=parted", *more)

    cut(run, monkeypatch, *CUTS[cut_at])
    last = Path("parted/log.txt").read_text().splitlines()[-1]
    assert last.startswith("stopped by SIGTERM at step") == (CUTS[cut_at][3] is terminate)
    assert_same(whole, run("resume=true"))


def test_batches_that_a_process_read_ahead_are_read_again(whole, tiny_folder, monkeypatch):
    """Nor does it show who reads: the whole run had no such process."""

    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "batch.workers=1", "run_dir=parted", *more)

    cut(run, monkeypatch, *CUTS["killed between validations"])
    assert_same(whole, run("resume=true"))


def test_a_second_kill_right_after_going_on_changes_nothing(whole, tiny_folder, monkeypatch):
    """After one micro-batch of two, and after the validation that is made up for."""

    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "run_dir=parted", *more)

    cut(run, monkeypatch, *CUTS["stopped in the second validation"])
    going_on = lambda: run("resume=true")  # noqa: E731
    first = (GracefulStop, "on_train_batch_end", lambda *_: True, kill)
    cut(going_on, monkeypatch, *first, after=True)
    assert saved(Path("parted"))["global_step"] == 4
    assert not saved(Path("parted"))["sce"]["validation_due"]
    cut(going_on, monkeypatch, *first, after=True)
    assert_same(whole, going_on())


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    whole, tiny_folder, monkeypatch
):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "run_dir=parted", *more)

    original = Trainer.save_checkpoint

    def interrupted(self, file):
        original(self, file)
        if self.global_step == 4:
            Path(file).write_bytes(Path(file).read_bytes()[:100])
            kill()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", interrupted)
        with pytest.raises(Killed):
            run()
    assert saved(Path("parted"))["global_step"] == 2
    assert_same(whole, run("resume=true"))


def test_gradients_that_are_not_finite_are_no_step_and_leave_the_checkpoint_alone(
    whole, tiny_folder, monkeypatch
):
    """Though the loss is finite; a checkpoint of that step would have nothing but NaN."""

    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "run_dir=parted", "save_every=1", *more)

    original = SceModule.training_step

    def spoilt(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        weight = next(p for p in self.parameters() if p.requires_grad)
        # 0, whose gradient is 0 * inf.
        return loss + (torch.sqrt((weight * 0).sum()) if self.global_step == 4 else 0)

    with monkeypatch.context() as patch:
        patch.setattr(SceModule, "training_step", spoilt)
        with pytest.raises(InputError, match=r"norm is nan at step 5, though the loss is \d"):
            run()
    assert saved(Path("parted"))["global_step"] == 4
    assert_same(whole, run("resume=true"))


def test_a_rank_that_sees_no_run_says_so_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    given = {"name": "mdqa", "seed": 0}
    with pytest.raises(InputError, match=r"this rank sees no run in run_dir=.*all machines share"):
        choose_run_dir(str(tmp_path / "mine"), **given, resume=True)
    assert choose_run_dir(str(tmp_path / "mine"), **given, resume=False) == tmp_path / "mine"


def test_stopped_before_the_first_checkpoint_it_starts_anew_in_its_folder(
    whole, tiny_folder, monkeypatch
):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "run_dir=parted", *more)

    cut(run, monkeypatch, SceModule, "validation_step", in_validation(0), terminate)
    with pytest.raises(InputError, match="parted exists"):
        run()
    assert_same(whole, run("resume=true"))


UNEVEN = ("trainer.max_steps=4", "val_every=3")
"""The last step is not one of a validation within training."""


def test_the_last_step_is_saved_though_no_validation_is_due(tiny_folder, monkeypatch):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, *UNEVEN, *more)

    whole = run("run_dir=plain")
    assert saved(whole)["global_step"] == 4
    last = (SceModule, "validation_step", in_validation(4), terminate)
    cut(lambda: run("run_dir=parted"), monkeypatch, *last)
    assert saved(Path("parted"))["global_step"] == 4  # what it said when it left
    took = []
    step = SceModule.optimizer_step
    monkeypatch.setattr(
        SceModule, "optimizer_step", lambda self, *a, **k: [took.append(1), step(self, *a, **k)]
    )
    assert_same(whole, run("run_dir=parted", "resume=true"))
    assert not took


def test_a_finished_run_whose_only_checkpoint_is_the_last_step_s_is_extended(tiny_folder):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "val_every=20", *more)

    def rates(run_dir, version):
        with (run_dir / "csv" / f"version_{version}" / "metrics.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["train/loss"]]
        return {int(row["step"]): float(row["train/learning_rate"]) for row in rows}

    run_dir = run("run_dir=mine", "trainer.max_steps=2")
    run("run_dir=mine", "resume=true", "trainer.max_steps=4")
    assert [row["step"] for row in read_jsonl(run_dir / "records.jsonl")] == [0, 4]
    unparted = rates(run("run_dir=unparted", "trainer.max_steps=4"), 0)
    assert rates(run_dir, 1) == {step: unparted[step] for step in (3, 4)}  # none is lost at rate 0


def test_an_adapter_that_was_being_replaced_is_there_again(tiny_folder):
    run_dir = run_train(tiny_folder, "run_dir=mine")
    held = {path.name: path.read_bytes() for path in (run_dir / "adapter").iterdir()}
    (run_dir / "adapter").rename(run_dir / ".adapter-old")
    (run_dir / ".adapter-new").mkdir()
    run_train(tiny_folder, "run_dir=mine", "resume=true")
    assert {path.name: path.read_bytes() for path in (run_dir / "adapter").iterdir()} == held
    assert not list(run_dir.glob(".adapter-*"))


def test_records_are_not_thrown_away_for_want_of_a_checkpoint(tiny_folder, tmp_path):
    run_dir = run_train(tiny_folder, "run_dir=mine")
    (run_dir / "checkpoints" / "last.ckpt").unlink()
    before = {p: p.read_bytes() for p in sorted(run_dir.rglob("*")) if p.is_file()}
    with pytest.raises(InputError, match=r"records up to step 4 but no checkpoints/last\.ckpt"):
        run_train(tiny_folder, "run_dir=mine", "resume=true")
    assert {p: p.read_bytes() for p in sorted(run_dir.rglob("*")) if p.is_file()} == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_other_signals_and_the_handlers_that_were_there(tiny_folder, monkeypatch, name):
    heard = []
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: heard.append(name))
    try:
        stop = (SceModule, "optimizer_step", at_step(1), lambda: signal.raise_signal(number))
        cut(lambda: run_train(tiny_folder, "run_dir=parted"), monkeypatch, *stop)
        signal.raise_signal(number)
        assert heard == [name]
    finally:
        signal.signal(number, before)


def test_a_second_signal_goes_to_the_handler_that_was_there(monkeypatch):
    heard, stop = [], GracefulStop()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        stop._take_over()
        stop._note(signal.SIGUSR1, None)
        stop._note(signal.SIGUSR1, None)  # to the group, and to each process: the same one
        assert not heard
        monkeypatch.setattr(graceful_stop, "AGAIN_S", 0)
        stop._note(signal.SIGUSR1, None)
        for _ in range(3):  # Python runs handlers between steps of its own
            pass
        assert heard == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def counters(ready: int, behind: int) -> dict[str, int]:
    return {"ready": ready, "started": ready, "processed": ready, "completed": ready - behind}


@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 4), (4, 1), (3, 3)])
def test_counters_of_micro_batches_are_told_in_the_new_ones(old, new, behind):
    steps = 5
    progress = {name: counters(steps * old, behind) for name in ("total", "current")}
    loop = {
        "epoch_loop.batch_progress": progress,
        "state_dict": {"combined_loader": [{"batches": steps * old}]},
    }
    own = {"schema": SCHEMA, "accumulate": old}
    unpack({"sce": own, "loops": {"fit_loop": loop}}, new)
    assert progress["total"] == progress["current"] == counters(steps * new, behind)
    assert loop["state_dict"]["combined_loader"][0]["batches"] == steps * new


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=4", r"lora\.r=8, this command lora\.r=4"),
        ("optimizer.lr=0.5", r"optimizer\.lr"),
        ("model.rope_theta=20000", "rope_theta"),
        ("batch.train=1", "examples a step=4, this command examples a step=2"),
        ("trainer.gradient_clip_val=0.5", "gradient_clip_val"),
        ("model.dtype=bfloat16", "dtype=float32, this command dtype=bfloat16"),
        ("scorer.tau=0.2", r"scorer\.tau=0\.1, this command scorer\.tau=0\.2"),
        ("scorer.k=3", r"scorer\.k=20, this command scorer\.k=3"),
        ("max_new_tokens=5", "max_new_tokens=4, this command max_new_tokens=5"),
        ("batch.eval=3", r"batch\.eval=4, this command batch\.eval=3"),
        ("val_every=3", "val_every=2, this command val_every=3"),
        ("trainer.max_steps=6", r"trainer\.max_steps=6: the run has taken 7 steps already"),
    ],
)
def test_another_recipe_is_refused_before_the_weights_load(
    whole, tiny_folder, monkeypatch, override, message
):
    from sce.model import build

    monkeypatch.setattr(build, "load_model", kill)
    with pytest.raises(InputError, match=message):
        run_train(tiny_folder, *OPTIONS, f"run_dir={whole}", "resume=true", override)


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("identity", "weights_sha256", "the run has weights_sha256=other"),
        ("identity", "version of sce", "the run has version of sce=other"),
        ("identity", "version of the training code", "go on with the version of sce that began"),
        ("identity", "train_sha256", "the run has train_sha256=other"),
        ("identity", "data.label", r"the run has data\.label=other"),
        ("schema", None, "is of another version of sce"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    whole, tiny_folder, tmp_path, part, name, message
):
    shutil.copytree(whole, tmp_path / "mine")
    file = tmp_path / "mine" / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["sce"] |= {part: "other" if name is None else content["sce"][part] | {name: "other"}}
    torch.save(content, file)
    with pytest.raises(InputError, match=message):
        run_train(tiny_folder, *OPTIONS, "run_dir=mine", "resume=true")


def test_another_reference_is_refused_the_same_one_elsewhere_is_not(tiny_folder):
    def run(*more):
        few = ("trainer.max_steps=1", "scorer.k=3", "optimizer.lr=0.02", "run_dir=mine")
        return run_train(tiny_folder, *few, *more)

    run_score(tiny_folder, "out=one.json")
    run("reference.path=one.json")
    Path("moved.json").write_bytes(Path("one.json").read_bytes())
    run("reference.path=moved.json", "resume=true")
    content = json.loads(Path("one.json").read_text())
    content["scores"][0][0] += 0.5
    content["per_example"] = None
    Path("one.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"this command sha256 of reference\.path="):
        run("reference.path=one.json", "resume=true")
    with pytest.raises(InputError, match=r"this command sha256 of reference\.path=None"):
        run("resume=true")


@pytest.mark.parametrize(
    ("content", "message"), [(b"torn", "cannot be read"), ({"sce": {}}, "cannot be read")]
)
def test_a_checkpoint_that_is_none_is_refused(tiny_folder, tmp_path, content, message):
    run_dir = tmp_path / "mine"
    (run_dir / "checkpoints").mkdir(parents=True)
    file = run_dir / "checkpoints" / "last.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=message):
        run_train(tiny_folder, "run_dir=mine", "resume=true")


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "8"}
SLURM = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "sce"}
SLURM["SLURM_NTASKS_PER_NODE"] = "8"


@pytest.mark.parametrize("names", [TORCHRUN, SLURM])
def test_processes_that_others_started_must_be_as_many_as_the_run_has(
    tiny_folder, monkeypatch, names
):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"8 processes were started, but trainer\.devices=1 x"):
        run_train(tiny_folder)


def test_a_run_in_an_interactive_shell_of_slurm_is_one_process(monkeypatch):
    for name, value in {**SLURM, "SLURM_JOB_NAME": "bash"}.items():
        monkeypatch.setenv(name, value)
    parallel.require_launched(1, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", "sce")
    parallel.require_launched(4, 2)
