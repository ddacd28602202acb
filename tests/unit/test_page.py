"""The report as a file: its numbers are the findings', its text is harmless, it fetches nothing."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from page_findings import SMALL, look, one_run, two_tasks
from sce.analysis.__main__ import main
from sce.analysis.page import write
from sce.analysis.page.content import content
from sce.analysis.page.html import embedded, page
from sce.analysis.page.tables import estimate
from study_runs import Planted, World, write_study

NASTY = "</script><script>alert('run')</script><!--<img src=x onerror=alert(1)>\u2028 \"quoted\""


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return two_tasks(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def data(findings):
    return content(findings, [])


def test_runs_have_the_numbers_of_the_findings(findings, data):
    told = findings.to_json()
    (group,), (shown,) = told["groups"], data["groups"]
    for task, own in zip(group["tasks"], shown["tasks"], strict=True):
        assert [run["name"] for run in own["runs"]] == [run["name"] for run in task["runs"]]
        for run, other in zip(task["runs"], own["runs"], strict=True):
            np.testing.assert_allclose(other["map"], np.ravel(run["scores"]), atol=5.1e-5)
            assert other["above"] == [
                layer * task["num_heads"] + head for layer, head in run["heads"]
            ]
            measures = run["checkpoints"][-1]["measures"]
            for name, value in other["measures"].items():
                expected = [measures[name][each] for each in ("value", "low", "high", "n")]
                assert value == pytest.approx(expected, abs=1e-6)
        for setting, other in zip(task["settings"], own["settings"], strict=True):
            known = {n: e for n, e in setting["measures"].items() if e["value"] is not None}
            assert other["measures"]["f1"][0] == pytest.approx(known["f1"]["value"], abs=1e-6)
        assert own["ceiling"]["recall"] == estimate(findings.groups[0].tasks[0].ceiling["recall"])


def test_every_task_has_every_figure_with_its_caption_and_numbers(data):
    figures = data["groups"][0]["figures"]
    by_task = {
        task: [figure["key"] for figure in figures if figure["task"] == task]
        for task in ("mdqa", "musique", None)
    }
    assert by_task["mdqa"] == by_task["musique"]
    assert len(by_task["mdqa"]) == 15
    assert by_task[None] == ["rho"]
    for figure in figures:
        assert figure["parts"], figure["key"]
        assert all(figure["caption"][:1]), figure["key"]
        assert figure["tables"], figure["key"]
        for table in figure["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_panels_know_their_setting(findings, data):
    """Filters drop the panels of what is hidden, so each must say whose it is."""
    task = findings.groups[0].tasks[0]
    figures = {figure["key"]: figure for figure in data["groups"][0]["figures"][::-1]}
    learned = {part["setting"] for part in figures["learning"]["parts"]}
    assert learned == {s.setting for s in task.settings if s.kind != "untuned"}
    titled = [
        (part["setting"], part["spec"]["title"]["text"]) for part in figures["layers"]["parts"]
    ]
    assert len(titled) == len(task.layers)
    assert all(setting[:26] == title for setting, title in titled)


def test_tables_of_effects_say_what_speaks_against(data):
    figures = {figure["key"]: figure for figure in data["groups"][0]["figures"]}
    against = figures["patching"]["tables"][1]["rows"]
    assert ["complement", "worse than random heads (layer_matched, k 8)", "F1 -0.010"] in [
        row[3:] for row in against
    ]
    assert any(row[-1] == "3 of 64 examples" for row in against)


def test_text_of_others_cannot_end_the_script():
    text = embedded({"name": NASTY})
    assert json.loads(text) == {"name": NASTY}
    assert not re.search(r"[<>&\u2028\u2029]", text)


def test_names_from_outside_stay_text(findings):
    task = findings.groups[0].tasks[0]
    runs = [replace(task.runs[0], name=NASTY, setting=NASTY), *task.runs[1:]]
    first = replace(task.settings[0], setting=NASTY, runs=[NASTY, *task.settings[0].runs[1:]])
    task = replace(task, task=NASTY, runs=runs, settings=[first, *task.settings[1:]])
    group = replace(findings.groups[0], name=NASTY, tasks=[task], answers=[NASTY])
    text = page(replace(findings, study=NASTY, groups=[group], warnings=[NASTY]))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("</script>") == text.count("<script") == 3


def test_the_policy_allows_these_scripts_and_nothing_else(findings):
    text = page(replace(findings, groups=[]))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = policy.group(1).replace("&#39;", "'")
    assert "default-src 'none'" in rules
    assert "unsafe-eval" not in rules
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules


def test_nothing_is_fetched(findings):
    markup = re.sub(r"<script.*?</script>", "", page(replace(findings, groups=[])), flags=re.DOTALL)
    assert not re.search(r"<link|<iframe|\bsrc=|url\(|@import|https?:", markup)


def test_one_run_without_reference_or_intervals(tmp_path):
    findings = one_run(tmp_path / "runs")
    file = tmp_path / "deep" / "report.html"
    write(findings, file)
    text = file.read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    told = json.loads(found.group(1))
    (task,) = told["groups"][0]["tasks"]
    assert task["reference"] is None
    assert "recall" not in task["runs"][0]["measures"]
    assert "NaN" not in found.group(1)


def test_no_groups_at_all(findings, tmp_path):
    write(replace(findings, groups=[], study=None), tmp_path / "empty.html")
    assert (tmp_path / "empty.html").is_file()


def test_examples_to_look_at(findings):
    told = content(replace(findings, groups=[]), [look("mdqa", 8, 6)])
    (example,) = told["looks"]
    assert (example["layers"], example["heads"]) == (8, 6)
    assert len(example["map"]) == 48
    assert example["looked_at"][7][1] == [455, 456, 456]
    with pytest.raises(ValueError, match=r"not what sce\.looks/1 says"):
        content(findings, [look("mdqa", 8, 6) | {"schema": "sce.looks/9"}])


def test_the_command_writes_the_page_with_a_study_s_looks(tmp_path, capsys):
    folder = tmp_path / "study"
    planted = Planted(num_settings=2, seeds=(0,), real_seeds=(100,))
    write_study(folder, [World(task="mdqa", **SMALL)], planted)
    rows = [json.dumps(look("mdqa", 8, 6, num_tokens=n)) for n in (100, 200)]
    wrong = [json.dumps(look("mdqa", 8, 6) | {"scores": [[0.1]]}), "torn", "[]"]
    (folder / "looks").mkdir()
    (folder / "looks" / "mdqa.jsonl").write_text("\n".join([rows[0], *wrong, rows[1]]) + "\n")
    out = tmp_path / "out"
    assert main([str(folder), "--out", str(out)]) == 0
    assert f"report     {out}/index.html" in capsys.readouterr().out
    data = re.search(r'id="data">(.*?)</script>', (out / "index.html").read_text("utf-8"), re.S)
    assert data
    told = json.loads(data.group(1))
    assert [each["id"] for each in told["looks"]] == ["example-100", "example-200"]
    assert told["groups"][0]["tasks"][0]["reference"]["source"].endswith("reference/mdqa.json")
