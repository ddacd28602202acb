"""The report in a real browser: pointing, clicking, filtering and the keyboard alone."""

from itertools import pairwise

import pytest

import browser
from page_findings import hundred_runs, look, one_run, two_groups, two_tasks
from sce.analysis.page import write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason="no chromium"),
]
MAX_SIZE, MAX_MS = 15e6, 3000


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return two_tasks(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def told(findings):
    """What findings.json says, by task."""
    return {task["task"]: task for task in findings.to_json()["groups"][0]["tasks"]}


@pytest.fixture(scope="module")
def file(findings, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "index.html"
    looks = [look("mdqa", 8, 6), look("musique", 8, 6, num_tokens=200)]
    write(findings, file, looks)
    return file


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """The report of a hundred runs."""
    folder = tmp_path_factory.mktemp("hundred")
    findings = hundred_runs(folder / "study")
    (task,) = findings.groups[0].tasks
    assert sum(run.kind != "untuned" for run in task.runs) == 100
    write(findings, folder / "index.html")
    return folder / "index.html"


@pytest.fixture(scope="module")
def window():
    with browser.reader() as found:
        yield found


@pytest.fixture
def page(window, file):
    """The report, freshly opened; at the end nothing may have gone wrong in it."""
    window.look(1400)
    window.open(file)
    yield window
    assert window.complaints() == []


def cell(page, figure, layer, head, num_heads=6):
    """The mark of a head in a map, which are drawn in the order of the scores."""
    marks = page.all(f"#{figure} .cells_marks path")
    return marks[layer * num_heads + head]


def place(run):
    """Where a run is in the scatter."""
    measures = run["checkpoints"][-1]["measures"]
    return [measures[name]["value"] for name in ("recall", "f1")]


def scores_told(told, layer, head):
    """(task, run) -> score of a head, by findings.json, the reference among them."""
    found = {}
    for name, task in told.items():
        for run in task["runs"]:
            found[name, run["name"]] = run["scores"][layer][head]
        found[name, "reference"] = task["reference"]["scores"][layer][head]
    return found


def scores_shown(page):
    return {(row["task"], row["run"]): row["score"] for row in page.table("#head-table table")}


def test_pointing_at_a_head_shows_its_score_in_every_run(page, told):
    layer, head = 5, 2
    page.see("#map-run")
    page.point_at(cell(page, "map-run", layer, head))
    page.until(lambda: page.text("#head-title").startswith(f"Layer {layer}, head {head}:"))
    expected = scores_told(told, layer, head)
    shown = scores_shown(page)
    assert shown.keys() == expected.keys()
    for key, score in expected.items():
        assert shown[key] == pytest.approx(score, abs=5.1e-5), key
    drawn = page.run("return document.querySelectorAll('#strip .scores_marks path').length")
    assert drawn == len(expected)
    page.point_at(page.one("#head-title"))  # away again: back to the head that was chosen
    page.until(lambda: not page.text("#head-title").startswith(f"Layer {layer}, head {head}:"))


def test_clicking_a_point_shows_that_run_s_map(page, told):
    task = told["musique"]
    points = sorted((each for each in task["runs"] if each["is_point"]), key=place)
    run = points[len(points) // 2]
    marks = page.all("#scatter-1 .points_marks path")
    assert len(marks) == len(points)
    page.see("#scatter-1 .plot")
    page.click(marks[points.index(run)])
    page.until(lambda: run["setting"] in page.text("#run-title"))
    shown = page.run("return document.querySelector('#run').value")
    assert shown == f"musique\n{run['name']}"
    assert f"{len(run['heads'])} heads above tau" in page.text("#map-run figcaption")
    assert len(page.all("#map-run .above_marks path")) == len(run["heads"])
    assert len(page.all("#map-reference .above_marks path")) == len(task["reference"]["heads"])


def test_filters_of_task_kind_and_setting_act_on_all_that_is_drawn(page, told):
    def count(css="#scatter-0 .points_marks path"):
        return len(page.all(css))

    task = told["mdqa"]
    points = [run for run in task["runs"] if run["is_point"]]
    assert count() == len(points)
    page.choose("#task", "mdqa")
    page.until(lambda: not page.all("#scatter-1"))
    assert {row["task"] for row in page.table("#head-table table")} == {"mdqa"}
    assert page.all("#figure-list figure:not([hidden])")
    assert all(
        each.get_attribute("data-task") == "mdqa"
        for each in page.all("#figure-list figure:not([hidden])")
    )
    page.one("#kinds input[value=untuned]").click()
    page.until(lambda: count() == len(points) - 1)
    hidden = task["settings"][0]["setting"]
    page.one("#settings > summary").click()
    page.one(f"#settings input[value='{hidden}']").click()
    left = [run for run in points if run["kind"] != "untuned" and run["setting"] != hidden]
    page.until(lambda: count() == len(left))
    assert hidden not in {row["setting"] for row in page.table("#head-table table")}
    page.one("#settings > summary").click()
    page.see("[data-key=learning] figure:not([hidden])")
    panels = page.until(
        lambda: page.all("[data-key=learning] figure:not([hidden]) .role-title-text text")
    )
    titles = {panel.text for panel in panels}
    assert hidden not in titles
    assert {run["setting"] for run in left if run["kind"] == "synthetic"} <= titles
    page.see("[data-key='overlap-recall'] figure:not([hidden])")
    rows = len({run["setting"] for run in left}) + 1  # and the reference
    page.until(lambda: count("[data-key='overlap-recall'] .mark-rect path") > 0)
    assert count("[data-key='overlap-recall'] .mark-rect path") <= rows * rows
    page.one("#reset").click()
    page.until(lambda: count() == len(points) and page.all("#scatter-1"))


def test_the_keyboard_alone_does_the_same(page, told):
    keys = browser.Keys
    page.tab_to("#kinds input[value=untuned]")
    page.press(keys.SPACE)
    page.until(lambda: page.text("#filtered").startswith("36 of 38 runs"))
    page.tab_to("#scatter-0 .plot")
    page.press(keys.HOME)
    first = page.text("#run-title")
    page.press(keys.ARROW_RIGHT, keys.ARROW_RIGHT, keys.ARROW_RIGHT)
    page.until(lambda: page.text("#run-title") != first)
    task, name = page.run("return document.querySelector('#run').value").split("\n")
    run = next(run for run in told[task]["runs"] if run["name"] == name)
    page.until(lambda: f"{len(run['heads'])} heads above" in page.text("#map-run figcaption"))
    page.tab_to("#map-run .plot")
    page.press(*[keys.ARROW_DOWN] * 8, *[keys.ARROW_LEFT] * 6, keys.ARROW_UP, keys.ARROW_RIGHT)
    page.until(lambda: page.text("#head-title").startswith("Layer 1, head 1:"))
    assert scores_shown(page)[task, name] == pytest.approx(run["scores"][1][1], abs=5.1e-5)
    assert "Layer 1, head 1" in page.text("#head-words")
    assert page.one("#head-words").get_attribute("aria-live") == "polite"
    page.tab_to("#answer-tokens [aria-checked=true]")
    page.press(keys.ARROW_RIGHT)
    page.until(lambda: "(2 of 3)" in page.text("#look-words"))


def focused(page):
    return page.run("return document.activeElement.id || document.activeElement.textContent")


def test_what_has_the_focus_keeps_it_when_its_part_is_drawn_anew(page):
    keys = browser.Keys
    page.tab_to("#settings > summary")
    page.press(keys.ENTER)
    page.tab_to("#settings .controls button:nth-child(2)")
    page.press(keys.SPACE)
    page.until(lambda: page.text("#filtered").startswith("0 of 38 runs"))
    assert focused(page) == "none"
    assert page.text("#head-words") == page.text("#run-words") == "No run passes the filters."
    assert {row["kind"] for row in page.table("#head-table table")} == {"reference"}
    page.run("document.activeElement.previousElementSibling.focus()")
    page.press(keys.SPACE)
    page.until(lambda: page.text("#filtered").startswith("All 38 runs"))
    assert focused(page) == "all"
    page.tab_to("#head-table tr:not(.chosen) button.link")
    name = focused(page)
    page.press(keys.ENTER)
    page.until(lambda: page.text("#head-table tr.chosen th") == name)
    assert focused(page) == name
    page.run("document.querySelector('#all-numbers').open = true")
    page.until(lambda: page.all("#all-numbers tbody button"))
    page.tab_to("#all-numbers tbody button")
    page.press(keys.ENTER)
    assert focused(page) == "run-title"


def test_a_table_keeps_the_order_that_the_reader_gave_it(page):
    page.all("#head-table thead button")[3].click()
    page.until(lambda: page.all("#head-table th[aria-sort=descending]"))
    before = [row["F1"] for row in page.table("#head-table table")]
    page.point_at(cell(page, "map-run", 2, 3))
    page.until(lambda: page.text("#head-title").startswith("Layer 2, head 3"))
    assert [row["F1"] for row in page.table("#head-table table")] == before
    page.all("#head-table thead button")[3].click()
    page.until(lambda: page.all("#head-table th[aria-sort=ascending]"))


def test_another_model_or_scorer_is_chosen_by_keyboard(window, tmp_path):
    write(two_groups(tmp_path), tmp_path / "index.html")
    window.open(tmp_path / "index.html")
    window.tab_to("#group")
    first = window.run("return document.querySelector('#group').selectedOptions[0].textContent")
    window.press(browser.Keys.ARROW_DOWN)
    words = "return document.querySelector('#group').selectedOptions[0].textContent"
    window.until(lambda: window.run(words) != first)
    assert focused(window) == "group"
    assert window.complaints() == []


def test_where_a_head_looks_as_the_answer_is_emitted(page):
    page.see("#retrieval")
    assert "looks at token 455, “Isolde”, in the evidence" in page.text("#look-words")
    assert "In the evidence for 3 of 3 tokens." in page.text("#look-words")
    assert [each.text.strip() for each in page.all("#prompt .now")] == ["Isolde"]
    assert len(page.all("#prompt mark")) == 1
    assert page.text("#prompt mark").strip().startswith("The lighthouse keeper")
    assert len(page.all("#prompt .folded")) == 2
    page.all("#prompt .folded")[0].click()
    assert len(page.all("#prompt .folded")) == 1
    page.until(lambda: page.all("#look-map .cells_marks path"))
    page.see("#look-map")
    page.click(cell(page, "look-map", 6, 0))
    page.until(lambda: "layer 6, head 0" in page.text("#look-words"))
    page.choose("#task", "musique")
    page.until(lambda: page.run("return document.querySelector('#example').value") == "1")
    assert not page.all("#prompt .folded")


def test_tables_say_what_the_findings_say(page, told):
    page.run("document.querySelectorAll('details.numbers').forEach((each) => (each.open = true))")
    page.until(lambda: len(page.all("#all-numbers table")) == 2)
    rows = page.table("#all-numbers div.table-box:nth-of-type(2) table")
    names = {"F1": "f1", "recall": "recall", "recall learned": "recall_learned", "cosine": "cosine"}
    names |= {"validation loss": "answer_nll", "Jaccard": "jaccard"}
    assert len(rows) == sum(len(task["runs"]) for task in told.values())
    for row in rows:
        run = next(run for run in told[row["task"]]["runs"] if run["name"] == row["run"])
        for column, name in names.items():
            value = run["checkpoints"][-1]["measures"].get(name, {"value": None})["value"]
            expected = "-" if value is None else pytest.approx(value, abs=1e-6)
            assert row[column] == expected, (row["run"], column)
    shown = page.run(
        "return JSON.parse(document.getElementById('data').textContent).groups[0].rhos"
    )
    by_key = {(rho["task"], rho["measure"], rho["points"]): rho["rho"] for rho in shown}
    table = page.table("[data-key=rho] figure[data-task=mdqa] details table")
    row = next(row for row in table if row["measure"] == "recall of the reference's heads")
    assert row["Spearman rho"] == by_key["mdqa", "recall", "synthetic"][0]


def test_light_dark_narrow_and_paper(page, file):
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = "return document.querySelector('#scatter-0 .role-axis-title text').getAttribute('fill')"
    light = page.run(paper), page.run(ink)
    page.choose("#theme", "dark")
    page.until(lambda: page.run(ink) != light[1])
    assert page.run(paper) != light[0]
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.until(lambda: page.run(ink) == light[1])
    page.run("dispatchEvent(new Event('afterprint'))")
    page.until(lambda: page.run(ink) != light[1])
    page.choose("#theme", "auto")
    page.until(lambda: page.run(ink) == light[1])
    for width in (1400, 420):
        page.look(width, scheme="dark")
        page.open(file)
        assert page.run(paper) != light[0]
        assert page.run("return document.documentElement.scrollWidth <= innerWidth"), width


def test_on_paper_no_page_is_empty_and_no_figure_is_torn_from_its_heading(page, hundred):
    page.open(hundred)
    pages = page.printed()
    assert min(len(text) for text in pages) > 100
    questions = page.run(
        """return [...document.querySelectorAll("#figure-list .question")].map((each) =>
        [each.querySelector("h3"), ...each.querySelectorAll("figcaption")].map((part) =>
          part.textContent.replace(/\\s/g, "").slice(0, 60)))"""
    )
    assert len(questions) > 8
    for heading, *captions in questions:
        assert any(all(part in text for part in (heading, *captions)) for text in pages), heading
    # Of plots far down, which are drawn for the printer alone.
    for written in ("headsarun", "shareofheads", "asthereference", "headstakenout"):
        assert any(written in text for text in pages), written


def test_two_tasks_are_printed_whole(page, file):
    pages = page.printed()
    assert min(len(text) for text in pages) > 100
    for written in ("headsarun", "shareofheads", "asthereference", "headstakenout"):
        assert sum(text.count(written) for text in pages) >= 2, written


def test_every_control_has_a_name_and_nothing_is_fetched(page):
    nameless = page.run(
        """return [...document.querySelectorAll("select, input, button, [role=application]")]
        .filter((each) => !(each.labels?.length || each.textContent.trim() ||
          each.getAttribute("aria-label"))).map((each) => each.outerHTML)"""
    )
    assert nameless == []
    levels = page.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map((h) => h.tagName)")
    steps = [int(name[1]) for name in levels]
    assert steps[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(steps))
    fetched = page.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


def test_one_run_without_reference_or_untuned_model(window, tmp_path):
    file = tmp_path / "one.html"
    write(one_run(tmp_path / "runs"), file)
    window.look(1400)
    window.open(file)
    assert window.run("return document.querySelector('#measure').value") == "answer_nll"
    assert window.text("#scatters figcaption").startswith("1 run: F1 against validation loss")
    assert "There is no ceiling" in window.text("#scatters figcaption")
    assert "without a reference" in window.text("#run-words")
    assert "lonely" in window.run("return document.querySelector('#run').value")
    assert len(window.all("#maps figure")) == 1
    assert not window.one("#retrieval").is_displayed()
    assert window.complaints() == []


def test_a_hundred_runs_of_a_thousand_heads_are_small_and_fast(window, hundred, capsys):
    size = hundred.stat().st_size
    assert size < MAX_SIZE
    window.look(1400)
    ready = []
    for _ in range(3):  # other tests run beside this one: once in three it is not kept waiting
        window.open(hundred)
        ready.append(window.ready)
    with capsys.disabled():
        print(f"\nreport of 100 runs: {size / 1e6:.1f} MB, usable after {min(ready)} ms")
    assert min(ready) < MAX_MS
    assert window.text("#about").startswith("100 runs")
    assert window.complaints() == []
