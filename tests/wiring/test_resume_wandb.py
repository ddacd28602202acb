"""W&B sees one run, whatever killed it in between: its id stays, and no figure comes twice."""

from collections import Counter

import pytest
from fake_wandb import FakeWandb, wandb_alone
from test_resume import CUTS, OPTIONS, cut

from runs import run_train

X = "trainer/global_step"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with wandb_alone(monkeypatch, tmp_path / "home"), FakeWandb() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        yield fake


def points(server) -> Counter:
    """(name, step) -> how often it came; images and what W&B adds by itself left out."""
    return Counter(
        (name, row[X])
        for row in server.history
        for name, value in row.items()
        if X in row and "/" in name and name != X and isinstance(value, (int, float))
    )


@pytest.mark.parametrize("cut_at", ["killed between validations", "killed before the last row"])
def test_a_killed_and_resumed_run_is_one_run_and_no_point_comes_twice(
    server, tiny_folder, monkeypatch, cut_at
):
    def run(*more):
        return run_train(tiny_folder, *OPTIONS, "logger=wandb", "run_dir=parted", *more)

    cut(run, monkeypatch, *CUTS[cut_at])
    run("resume=true")
    assert len(server.runs) == 1
    found = points(server)
    assert {step for name, step in found if name == "train/loss"} == set(range(1, 8))
    assert {step for name, step in found if name == "val/f1"} == {0, 2, 4, 6, 7}
    assert {point: count for point, count in found.items() if count > 1} == {}
