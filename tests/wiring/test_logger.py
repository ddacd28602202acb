"""The mode is chosen without a prompt or a stall, and what is logged arrives, here or there."""

import csv
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from fake_wandb import FakeWandb, wandb_alone

import sce.logger
from sce.errors import InputError
from sce.logger import make_logger, run_path
from sce.options import LoggerOptions

KEY = "0123456789" * 4
CONFIG = {"seed": 3, "optimizer": {"lr": 1e-3}}
SOON_S = 60  # who waits for an answer waits for minutes


@pytest.fixture(autouse=True)
def clean_wandb(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with wandb_alone(monkeypatch, tmp_path / "home"):
        yield


@pytest.fixture
def server(monkeypatch):
    with FakeWandb() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield fake


@pytest.fixture
def make(tmp_path):
    """Make a logger in tmp_path/run, hold its message to what all must be, and leave no run."""

    def made(name="wandb", **changes):
        facts = {"run_name": "low-0", "config": CONFIG, "tags": ["mdqa"], "job_type": "low"}
        options = LoggerOptions(name=name, project="curves", group="study")
        run_logger = make_logger(options, run_dir=tmp_path / "run", **facts | changes)
        assert "\n" not in run_logger.message
        assert KEY not in run_logger.message
        return run_logger

    yield made
    wandb.finish()


@pytest.fixture
def local_rows(tmp_path):
    """Rows of the one offline run, as `wandb leet inspect` reads them."""

    def read():
        (path,) = tmp_path.glob("run/wandb/offline-run-*/run-*.wandb")
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        records = map(json.loads, done.stdout.splitlines())
        return [each["history"]["item"] for each in records if each["type"] == "history"]

    return read


def log(run_logger, exit_code=0):
    """Log one scalar and one image at step 7, and finish."""
    image = np.full((4, 6, 3), 128, np.uint8)
    run_logger.logger.log_metrics({"val/f1": 0.5}, step=7)
    run_logger.logger.log_image("heads/map", [image], step=7)
    run_logger.finish(exit_code)


def assert_logs_offline(run_logger, reason, tmp_path):
    """Offline for `reason`, said with how to look and how to upload, and the rows are on disk."""
    assert run_logger.mode == "offline"
    assert reason in run_logger.message
    assert f"`wandb leet {tmp_path}/run/wandb`" in run_logger.message
    assert f"`wandb sync {tmp_path}/run/wandb/offline-run-*`" in run_logger.message
    assert run_logger.url is None
    log(run_logger)
    (folder,) = tmp_path.glob("run/wandb/offline-run-*")
    assert folder.name.endswith(run_id(run_logger))
    assert list(folder.glob("files/media/images/heads/map_*.png"))


def test_online_run_reaches_the_server(server, make):
    run_logger = make()
    assert run_logger.mode == "online"
    assert run_logger.url in run_logger.message
    assert run_logger.url.startswith(server.url)
    log(run_logger)

    (scalar,) = [row for row in server.history if "val/f1" in row]
    assert (scalar["val/f1"], scalar["trainer/global_step"]) == (0.5, 7)
    (image,) = [body for path, body in server.files.items() if path.endswith(".png")]
    assert image.startswith(b"\x89PNG")
    run = server.runs[run_id(run_logger)]
    assert (run["project"], run["groupName"], run["jobType"]) == ("curves", "study", "low")
    assert (run["displayName"], run["tags"]) == ("low-0", ["mdqa"])
    config = json.loads(run["config"])
    assert (config["seed"]["value"], config["optimizer"]["value"]) == (3, {"lr": 1e-3})
    assert server.exit_code == 0


def run_id(run_logger):
    path = run_path(run_logger)
    return path and path.split("/")[-1]


def test_resumed_run_keeps_its_id_and_its_project(server, make):
    run_logger = make(run_path="/long/abcd1234")
    assert run_path(run_logger) == "/long/abcd1234"
    assert run_logger.url.endswith("abcd1234")
    assert "RunResumeStatus" in server.operations
    run_logger.finish(0)
    assert list(server.runs) == ["abcd1234"]


def test_each_job_of_a_process_has_its_own_run(server, make):
    broken_off = make()
    second = make(tags=["", "t" * 65])
    assert server.exit_code == 1
    assert run_id(broken_off) != run_id(second)
    second.finish(0)
    assert server.runs[run_id(second)]["tags"] == ["t" * 64]


def test_no_key_is_offline(server, make, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    assert_logs_offline(make(), "no API key", tmp_path)
    assert server.operations == []


def test_malformed_key_is_offline_and_not_shown(server, make, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    run_logger = make()
    assert "too-short" not in run_logger.message
    assert_logs_offline(run_logger, "API key", tmp_path)


def test_closed_port_is_offline_soon(server, make, monkeypatch, tmp_path, local_rows):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://me:secret@127.0.0.1:{port}")
    start = time.monotonic()
    run_logger = make(run_path="/sce/abcd1234")
    assert time.monotonic() - start < SOON_S
    assert "secret" not in run_logger.message
    assert run_id(run_logger) == "abcd1234"
    assert_logs_offline(run_logger, f"127.0.0.1:{port}", tmp_path)
    scalar, image = local_rows()
    assert (float(scalar["val/f1"]), int(scalar["trainer/global_step"])) == (0.5, 7)
    assert "heads/map" in " ".join(image)


def test_mute_server_is_offline_soon(server, make, monkeypatch, tmp_path):
    monkeypatch.setattr(sce.logger, "PROBE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        start = time.monotonic()
        run_logger = make()
        assert time.monotonic() - start < SOON_S
    assert_logs_offline(run_logger, "127.0.0.1", tmp_path)


def test_ailing_server_is_offline(server, make, tmp_path):
    server.health_status = 503
    assert_logs_offline(make(), "HTTP 503", tmp_path)
    assert server.operations == []


def test_server_without_health_page_is_online(server, make):
    server.health_status = 404
    run_logger = make()
    assert run_logger.mode == "online"
    run_logger.finish(0)


def test_refused_key_is_offline(server, make, tmp_path):
    server.graphql_status = 401
    assert_logs_offline(make(), "401", tmp_path)


def test_user_says_offline(server, make, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert_logs_offline(make(), "WANDB_MODE=offline", tmp_path)
    assert server.operations == []


def test_wandb_says_nothing_but_warnings_and_finds_none(make, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_SILENT")
    monkeypatch.setattr("wandb.errors.term._printed_messages", set())  # It warns but once.
    make()
    assert capsys.readouterr().err == ""
    wandb.termwarn("a warning")
    assert "WARNING a warning" in capsys.readouterr().err


def test_user_says_disabled(server, make, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run_logger = make()
    assert run_logger.mode == "disabled"
    assert "WANDB_MODE=disabled" in run_logger.message
    log(run_logger)
    assert (run_id(run_logger), run_logger.url) == (None, None)
    assert server.operations == []
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(("name", "value"), [("MODE", "of-fline"), ("BASE_URL", "nonsense")])
def test_invalid_setting_is_the_users_error(make, monkeypatch, name, value):
    monkeypatch.setenv(f"WANDB_{name}", value)
    with pytest.raises(InputError, match=f"^W&B setting {name.lower()} Input should be [^\n]+$"):
        make()


def test_project_and_entity_are_those_of_the_environment(monkeypatch):
    assert (LoggerOptions().project, LoggerOptions().entity) == ("sce", None)
    monkeypatch.setenv("WANDB_PROJECT", "long")
    monkeypatch.setenv("WANDB_ENTITY", "lab")
    assert (LoggerOptions().project, LoggerOptions().entity) == ("long", "lab")
    assert LoggerOptions(project="mine").project == "mine"


def test_bad_project_name_is_the_users_error(make, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = LoggerOptions(project="a/b")
    facts = {"run_name": "r", "config": {}, "tags": [], "job_type": "low"}
    with pytest.raises(InputError, match="project name 'a/b'"):
        make_logger(options, run_dir=tmp_path, **facts)


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize("name", ["wandb", "csv"])
def test_other_ranks_start_no_run(server, make, monkeypatch, tmp_path, rank, name):
    monkeypatch.setenv(rank, "1")
    run_logger = make(name)
    assert run_logger.logger is not None
    assert run_id(run_logger) is None
    assert (wandb.run, server.operations) == (None, [])
    assert not (tmp_path / "run").exists()
    run_logger.finish(0)


def test_global_rank_decides(server, make, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("SLURM_PROCID", "1")
    run_logger = make()
    assert run_logger.mode == "online"
    run_logger.finish(0)


def test_csv_rows_of_a_resumed_run_stay(make, tmp_path):
    for _ in range(2):
        run_logger = make("csv")
        run_logger.logger.log_metrics({"val/f1": 0.5}, step=7)
        run_logger.finish(0)
    assert (run_logger.mode, run_id(run_logger), run_logger.url) == ("csv", None, None)
    paths = sorted(tmp_path.glob("run/csv/*/metrics.csv"))
    assert len(paths) == 2
    assert str(paths[1]) in run_logger.message
    for path in paths:
        with path.open() as file:
            assert list(csv.DictReader(file)) == [{"val/f1": "0.5", "step": "7"}]
        assert "lr: 0.001" in (path.parent / "hparams.yaml").read_text()


def test_no_logger(make):
    run_logger = make("none")
    assert (run_logger.logger, run_logger.mode, run_logger.url) == (None, "none", None)
    assert run_id(run_logger) is None
    run_logger.finish(0)


def test_import_is_light():
    code = "import sys, sce.logger; print({'wandb', 'lightning', 'torch'} & set(sys.modules))"
    command, root = [sys.executable, "-c", code], Path(sce.logger.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
