"""Every YAML file: it opens with its command, composes, and mirrors the code's defaults."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from runs import configured
from sce.config import CONF, HeadsetConfig, ScoreConfig, TrainConfig, WriteConfig
from sce.study_options import StudyConfig

FILES = sorted(CONF.rglob("*.yaml"))
STUDIES = CONF / "studies"
GROUPS = [
    f for f in FILES if f.parent != CONF and "hydra" not in f.parts and STUDIES not in f.parents
]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONF)))
def test_a_file_opens_with_the_command_that_uses_it(file: Path):
    lines = file.read_text().splitlines()
    command = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert command.startswith("# python -m sce.")


@pytest.mark.parametrize("file", GROUPS, ids=lambda f: str(f.relative_to(CONF)))
def test_every_option_composes_and_is_typed(file: Path):
    config = configured("train", TrainConfig, [f"{file.parent.name}={file.stem}"])
    for callback in config.callbacks.values():
        instantiate(callback)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda f: f.stem)
def test_help_names_the_groups_a_command_takes_and_all_their_options(file: Path):
    defaults = yaml.safe_load(file.read_text())["defaults"]
    groups = [name for each in defaults if isinstance(each, dict) for name in each]
    help_file = CONF / "hydra" / "help" / file.name
    template = yaml.safe_load(help_file.read_text())["template"]
    told = dict(re.findall(r"^([a-z]+): (.*)$", template, re.MULTILINE))
    taken = [group for group in groups if not group.startswith("override ")]
    assert list(told) == taken
    assert ("[group=option ...]" in template) == bool(taken)
    for group, options in told.items():
        assert options.split(", ") == sorted(f.stem for f in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("file", sorted((STUDIES / "study").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_study_composes_and_is_typed(file: Path):
    config = configured("study", StudyConfig, [f"study={file.stem}"], STUDIES)
    assert config.study.name == file.stem


@pytest.mark.parametrize(
    ("name", "schema"), [("train", TrainConfig), ("score", ScoreConfig)], ids=["train", "score"]
)
def test_the_defaults_in_yaml_mirror_those_in_the_code(name, schema):
    composed, coded = asdict(configured(name, schema, [])), asdict(schema())
    for derived in ("callbacks", "reference"):
        composed.pop(derived, None)
        coded.pop(derived, None)
    # The shipped default trains on this machine's CPU; the code leaves the choice to Lightning.
    if name == "train":
        assert composed["trainer"].pop("accelerator") == "cpu"
        coded["trainer"].pop("accelerator")
    assert composed == coded


def test_the_defaults_of_write_mirror_those_in_the_code_and_it_needs_a_model():
    assert configured("write", WriteConfig, ["llm=x"]) == WriteConfig(llm="x")


def test_headset_needs_files():
    config = configured("headset", HeadsetConfig, ["files=[a.json]"])
    assert config.files == ["a.json"]


def test_the_shipped_reference_follows_scorer_mode_and_match():
    config = configured("train", TrainConfig, ["scorer=copy_needle", "mode=greedy"])
    assert config.reference.path == str(
        CONF / "reference" / "smollm2-sample" / "mdqa" / "copy_needle-greedy-exact.json"
    )
    for scorer in ("copy", "copy_needle"):
        for mode in ("teacher_forced", "greedy"):
            config = configured("train", TrainConfig, [f"scorer={scorer}", f"mode={mode}"])
            assert Path(config.reference.path).is_file()
