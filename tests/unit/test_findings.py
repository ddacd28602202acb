"""What docs/findings.md says of the studies that lie beside it is what their records say."""

from pathlib import Path

import pytest

from sce.analysis.study import analyse
from sce.records import read_jsonl

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = sorted((DOCS / "studies").iterdir())


@pytest.mark.parametrize("study", STUDIES, ids=lambda folder: folder.name)
def test_f1_and_its_bounds_of_every_run_are_those_of_its_records(study):
    told = (DOCS / "findings.md").read_text("utf-8")
    files = sorted(study.glob("runs/*/records.jsonl"))
    assert files
    for file in files:
        for row in read_jsonl(file):
            shown = f"{row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
            assert shown in told, (file.parent.name, row["step"])


@pytest.mark.parametrize("study", STUDIES, ids=lambda folder: folder.name)
def test_a_study_that_is_kept_can_be_analysed_and_holds_no_text_and_no_path(study):
    found = analyse([study])
    assert sum(len(task.runs) for group in found.groups for task in group.tasks) > 1
    for file in study.rglob("*.json*"):
        text = file.read_text("utf-8")
        assert '"/' not in text and "../" not in text, file
        assert '"question"' not in text and '"text"' not in text, file
