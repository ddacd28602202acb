"""The README's tree is the tree; files stay short; the project speaks of itself alone."""

import re
import shlex
import subprocess

import pytest

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}


def tracked() -> list[str]:
    result = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT
    )
    if result.returncode:
        pytest.skip("not a git checkout")
    return [name for name in result.stdout.splitlines() if (ROOT / name).exists()]


def tree() -> dict[str, str]:
    """Path -> phrase, from the README's listing with two spaces of indent a level."""
    block = re.search(r"<!-- tree -->\s*```text\n(.*?)```", README, re.DOTALL)
    assert block, "no tree in the README"
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, phrase = line.strip().partition(" ")
        folders = [*folders[:depth], name]
        found["".join(folders)] = phrase.strip()
    return found


def test_every_module_stands_in_the_readme_s_tree_with_a_phrase():
    listed = tree()
    modules = {
        name
        for name in tracked()
        if name.startswith(("sce/", "callbacks/")) and name.endswith(".py")
        if not name.endswith("__init__.py")
    }
    assert modules == {name for name in listed if name.endswith(".py")}
    assert all(listed.values())
    for name in listed:
        assert (ROOT / name).exists(), name


def test_source_files_are_short_and_named_for_what_they_do():
    for name in tracked():
        if name.endswith(".py"):
            assert name.split("/")[-1] not in FORBIDDEN_NAMES
            if name.startswith(("sce/", "callbacks/")):
                limit = 200 if name.startswith("callbacks/") else 300
                assert len((ROOT / name).read_text().splitlines()) <= limit, name


def test_no_two_modules_of_the_tests_have_one_name():
    """They import each other by it, and which of two is found would hang on the order."""
    names = [name.split("/")[-1] for name in tracked() if re.fullmatch(r"tests/.*\.py", name)]
    assert len(names) == len(set(names))


def test_no_file_of_ours_has_an_equals_sign_in_its_name_or_a_machine_s_path_in_it():
    path = re.compile(r"/(work|farm|tmp|root|home)/\w")
    for name in tracked():
        assert "=" not in name
        if name.endswith((".py", ".md", ".yaml", ".toml", ".txt")) or name == "Makefile":
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not path.search(text), name


PAGES = sorted(
    str(file.relative_to(ROOT)) for file in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_docs_name_options_that_exist(page):
    from runs import configured
    from sce.analysis.__main__ import parser
    from sce.commands import DatasetConfig, HeadsetConfig, ScoreConfig, TrainConfig
    from sce.config import CONF
    from sce.intervene_options import InterveneConfig
    from sce.study_options import StudyConfig
    from sce.write_options import WriteConfig

    schemas = {
        "intervene": InterveneConfig,
        "train": TrainConfig,
        "score": ScoreConfig,
        "headset": HeadsetConfig,
        "write": WriteConfig,
        "dataset": DatasetConfig,
        "study": StudyConfig,
    }
    text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
    text = text.replace("$seed", "0").replace("$cell", "real").replace("$data", "")
    for variable in ("$1", "$2"):  # of a shell function: a concept and a context
        text = text.replace(variable, "real")
    commands = re.findall(r"^ *python -m sce\.(\w+)(.*)$", text.replace("$3", "0"), re.MULTILINE)
    assert len(commands) >= (8 if page == "README.md" else 0)
    for command, rest in commands:
        words = shlex.split(rest.split("#")[0])
        if any(word.startswith("hydra.searchpath=") for word in words):  # to a folder of the user's
            continue
        if command == "analysis":
            parser().parse_args(words)
            continue
        overrides = [word for word in words if "=" in word or word.startswith("~")]
        conf = CONF / "studies" if command == "study" else CONF
        configured(command, schemas[command], overrides, conf)
