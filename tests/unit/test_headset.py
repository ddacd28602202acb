"""The head set command: what it shows, compares, averages, converts and refuses."""

import csv
import json
import logging
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from runs import configured
from sce.commands import HEADSET_OPTIONS, HeadsetConfig
from sce.errors import InputError
from sce.figures import overlap_matrix, recall_over_k
from sce.headset import headset
from sce.headsets import comparing, exchange
from sce.headsets.comparing import compare_all, letter, require_comparable
from sce.headsets.report import as_text, write
from sce.records import HeadScores
from sce.stats import Curves

PROVENANCE = {
    "weights_sha256": "w",
    "data_sha256": "d",
    "prompt_sha256": "p",
    "context_tokens": 100,
    "dtype": "float32",
    "rope": {"theta": 1e4, "was": 1e4},
}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Type checks at run time make a resample dear."""
    monkeypatch.setattr(comparing, "NUM_RESAMPLES", 60)


def head_scores(*heads, base=None, per_example=None, **changes) -> HeadScores:
    """Scores of 3 layers x 4 heads: 0.5 at the given (layer, head), 0 elsewhere."""
    scores = np.zeros((3, 4))
    for where in heads:
        scores[where] = 0.5
    origin = {**PROVENANCE, **changes.pop("provenance", {})}
    values = {
        "scorer": "copy",
        "mode": "teacher_forced",
        "match": "exact",
        "scores": scores if per_example is None else per_example.mean(axis=0),
        "num_examples": 8 if per_example is None else len(per_example),
        "per_example": per_example,
        "provenance": origin,
        "base_scores": base,
    }
    return HeadScores(**{**values, **changes})


def unknown(scores: HeadScores) -> HeadScores:
    """The same as an imported file."""
    scores.provenance = {"imported_from": "theirs.json", "file_sha256": "f"}
    return scores


RUN = ((0, 0), (0, 1), (1, 0))
REFERENCE = ((0, 0), (1, 0), (2, 0), (2, 1))
UNTUNED = ((0, 0),)


def test_a_comparison_has_the_values_worked_out_by_hand():
    base = head_scores(*UNTUNED)
    sets = {"s": head_scores(*RUN), "r": head_scores(*REFERENCE)}
    compared = compare_all(sets, ("b", base), tau=0.1, k=2)
    forth, back = (pair.comparison for pair in compared.pairs)
    assert (forth.recall, back.recall) == (2 / 4, 2 / 3)
    assert (forth.precision, back.precision) == (2 / 3, 2 / 4)
    assert forth.jaccard == back.jaccard == 2 / 5
    assert (forth.recall_learned, back.recall_learned) == (1 / 3, 1 / 2)
    assert forth.recall_null == 3 / 12
    assert forth.recall_null_layer == pytest.approx((2 * 1 + 1 * 1 + 0 * 2) / (4 * 4))
    assert forth.recall_at_k == 1 / 2  # {0-0, 0-1} and {0-0, 1-0}
    assert forth.cosine == pytest.approx(2 / np.sqrt(3 * 4))
    assert forth.cosine_learned == pytest.approx(1 / np.sqrt(2 * 3))
    first = compared.pairs[0]
    assert first.recall_p_value == pytest.approx(2 / 4 * 1 / 4, abs=0.02)  # the layers kept
    # Outside B the run has 0-1, where R has none, and 1-0, which one of four heads there would hit.
    assert first.recall_learned_p_value == pytest.approx(1 / 4, abs=0.02)
    # The other way: 1-0 and two of layer 2 beside 0-1 and 1-0, of which 1 in 4 hits 1-0.
    assert compared.pairs[1].recall_learned_p_value == pytest.approx(1 / 4, abs=0.02)
    assert first.partial_given_layer is not None
    assert first.curves.by_k["recall"][first.curves.ks.index(2)] == 1 / 2
    assert first.intervals == {}
    assert (first.run.n, first.reference.n) == (8, 8)


def test_the_untuned_model_is_the_reference_s_own_unless_one_is_given():
    own = head_scores(*UNTUNED).scores
    sets = {"s": head_scores(*RUN), "r": head_scores(*REFERENCE, base=own)}
    forth, back = (pair.comparison for pair in compare_all(sets, tau=0.1, k=2).pairs)
    assert forth.recall_learned == 1 / 3
    assert back.recall_learned is None
    given = compare_all(sets, ("b", head_scores((1, 0))), tau=0.1, k=2)
    assert given.pairs[0].comparison.recall_learned == 1 / 3
    assert given.pairs[1].comparison.recall_learned == 1 / 2


def test_intervals_are_over_the_run_s_kept_examples():
    rows = np.zeros((6, 3, 4))
    rows[:, 0, 0] = 0.5
    rows[:3, 1, 0] = 0.5  # above tau in most resamples, not in all
    rows[5] = np.nan
    scores = np.nanmean(rows, axis=0)
    run = head_scores(scores=scores, per_example=rows)
    run.scores = scores
    sets = {"s": run, "r": head_scores(*REFERENCE)}
    forth, back = compare_all(sets, tau=0.26, k=2).pairs
    low, high = forth.intervals["recall"]
    assert (low, high) == (1 / 4, 2 / 4)
    assert forth.comparison.recall == 2 / 4
    assert forth.run.n == 5
    assert back.intervals == {}
    again = compare_all(sets, tau=0.26, k=2).pairs[0]
    assert dict(again.intervals) == dict(forth.intervals)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scorer": "copy_needle"}, "scorer copy and copy_needle"),
        ({"mode": "greedy"}, "mode teacher_forced and greedy"),
        ({"match": "surface"}, "match exact and surface"),
        ({"scores": np.ones((3, 5))}, r"shape \(3, 4\) and \(3, 5\)"),
        ({"provenance": {"weights_sha256": "x"}}, "of different models"),
        ({"provenance": {"data_sha256": "x"}}, "of different examples"),
        ({"provenance": {"prompt_sha256": "x"}}, "of different prompts"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused_with_the_reason(changes, reason):
    sets = {"a": head_scores(*RUN), "b": head_scores(*RUN), "c": head_scores(*RUN, **changes)}
    with pytest.raises(InputError, match=f"^a and c cannot be compared: .*{reason}"):
        require_comparable(sets)
    base = head_scores(*RUN, **changes)
    with pytest.raises(InputError, match=f"base cannot be compared: .*{reason}"):
        compare_all({"a": head_scores(*RUN), "b": head_scores(*RUN)}, ("base", base), tau=0.1, k=2)


@pytest.mark.parametrize("key", ["adapter_sha256", "train_sha256"])
def test_an_average_is_not_compared_with_what_it_was_averaged_from(key):
    adapter = {"adapter_sha256": "a1"} if key == "adapter_sha256" else {"adapter": {key: "t1"}}
    run = head_scores(*RUN, provenance=adapter)
    for part, refused in ((adapter.get("adapter") or adapter, True), ({key: "other"}, False)):
        average = head_scores(*RUN, provenance={"members": [{key: "first"}, dict(part)]})
        if refused:
            with pytest.raises(InputError, match="would be compared with itself"):
                require_comparable({"run": run, "average": average})
        else:
            assert require_comparable({"run": run, "average": average}) == []


def test_imported_sets_are_compared_with_a_warning():
    theirs = {"a": unknown(head_scores(*RUN)), "b": unknown(head_scores(*REFERENCE))}
    (warning,) = require_comparable(theirs)
    assert "the weights behind a, b are unknown" in warning
    (warning,) = require_comparable({**theirs, "ours": head_scores(*RUN)})
    assert "the weights behind a, b are unknown" in warning
    with pytest.raises(InputError, match="different models"):
        other = head_scores(*RUN, provenance={"weights_sha256": "x"})
        require_comparable({**theirs, "ours": head_scores(*RUN), "other": other})
    with pytest.raises(InputError, match="scorer copy and duo"):
        require_comparable({**theirs, "c": unknown(head_scores(*RUN, scorer="duo"))})


def test_what_differs_without_being_wrong_is_a_warning():
    other = head_scores(*RUN, provenance={"dtype": "bfloat16", "context_tokens": 90})
    warnings = require_comparable({"a": head_scores(*RUN), "b": other})
    (warning,) = warnings
    assert "different length (100 and 90), dtype (float32 and bfloat16)" in warning
    was = head_scores(*RUN, provenance={"rope": {"theta": 1e4, "was": 5e5}})
    assert require_comparable({"a": head_scores(*RUN), "was": was}) == []
    now = head_scores(*RUN, provenance={"rope": {"theta": 5e5, "was": 1e4}})
    (warning,) = require_comparable({"theirs": unknown(head_scores(*RUN)), "a": was, "b": now})[1:]
    assert warning == "a and b were scored with different rope_theta (10000.0 and 500000.0)"


def test_the_table_fits_a_hundred_columns_and_shows_n_and_what_does_not_exist():
    rows = np.random.default_rng(0).random((12, 3, 4))
    sets = {
        "runs/a.json": head_scores(per_example=rows),
        "b.json": head_scores(*REFERENCE),
        "c.json": unknown(head_scores(num_examples=0)),
    }
    text = as_text(compare_all(sets, tau=0.1, k=2))
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in text
    assert "  A  runs/a.json: 12 heads > 0.1, n = 12" in lines
    assert "  C  c.json: 0 heads > 0.1, n = unknown" in lines
    forth, none = (
        next(line for line in lines if line.startswith(f" A   {run}")) for run in ("B", "C")
    )
    assert forth.split()[2] == "1.000"
    assert lines[lines.index(forth) + 1].split()[0] == "[1.000,1.000]"
    assert forth.endswith("12/8")
    assert none.split()[2] == "-"
    assert none.endswith("12/-")
    assert "warning: the weights behind c.json are unknown" in text
    assert "95% bootstrap interval" in text


def test_every_measure_in_the_table_has_its_interval_below_it():
    rng = np.random.default_rng(0)
    scores = {name: rng.random((12, 3, 4)) for name in ("s", "r", "b")}
    s, r, b = (head_scores(per_example=each) for each in scores.values())
    compared = compare_all({"s": s, "r": r}, ("b", b), tau=0.5, k=2)
    pair = compared.pairs[0]
    lines = as_text(compared).splitlines()
    assert max(len(line) for line in lines) <= 100
    starts = [n for n, line in enumerate(lines) if line.startswith(" A   B ")]
    shown = [re.findall(r"\[(.*?),(.*?)\]", lines[n + 1]) for n in starts]
    names = (
        ("recall", "recall_null", "recall_null_layer", "recall_learned", "recall_at_k"),
        ("precision", "jaccard", "cosine", "cosine_learned", "spearman", "partial_given_layer"),
    )
    for start, bounds, measures in zip(starts, shown, names, strict=True):
        expected = [pair.intervals[name] for name in measures]
        assert [tuple(map(float, each)) for each in bounds] == [
            pytest.approx(each, abs=5e-4) for each in expected
        ]
        for name in measures:
            assert f"{pair.row()[name]:.3f}" in lines[start].split()
    row = pair.row()
    for name in asdict(pair.comparison):
        low, high = pair.intervals[name]
        assert (row[f"{name}_low"], row[f"{name}_high"]) == (low, high)


def test_more_digits_widen_a_table_and_cut_nothing():
    rows = np.random.default_rng(0).random((6, 3, 4)) - 0.5
    run = head_scores(per_example=rows, provenance={"adapter_sha256": "a"})
    sets = {"a": run, "b": head_scores(*REFERENCE, base=-run.scores, num_examples=123456)}
    text = as_text(compare_all(sets, tau=0.1, k=2))
    assert "6/123456" in text and "\u2026" not in text


def test_json_csv_and_picture_hold_the_same_rows(tmp_path):
    rows = np.random.default_rng(0).random((6, 3, 4))
    sets = {"a": head_scores(per_example=rows), "b": head_scores(*REFERENCE)}
    compared = compare_all(sets, tau=0.3, k=2)
    write(compared, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (content["schema"], content["tau"], content["k"]) == ("sce.compare/1", 0.3, 2)
    assert [(s["letter"], s["file"], s["num_examples"]) for s in content["sets"]] == [
        ("A", "a", 6),
        ("B", "b", 8),
    ]
    with (tmp_path / "out" / "compare.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [(row["run"], row["reference"]) for row in table] == [("a", "b"), ("b", "a")]
    for row, pair, said in zip(table, compared.pairs, content["pairs"], strict=True):
        assert float(row["recall"]) == said["recall"] == pair.comparison.recall
        assert row["recall_learned"] == "" and said["recall_learned"] is None
        assert said["curves"] == pair.curves.to_json()
        bounds = said["curves"]["by_k"]["recall_low"], said["curves"]["by_tau"]["precision_high"]
        drawn = [any(value is not None for value in each) for each in bounds]
        assert drawn == [pair.run.letter == "A"] * 2
    assert [each["curves"]["n"] for each in content["pairs"]] == [6, 8]
    assert said["recall_low"] is None
    assert content["pairs"][0]["recall_low"] <= content["pairs"][0]["recall"]
    assert imread(tmp_path / "out" / "compare.png").ndim == 3
    with pytest.raises(InputError, match="out exists; name another folder"):
        write(compared, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_the_matrix_has_a_number_in_every_cell_that_has_one():
    cells = {("A", "B"): (0.5, 0.25, 0.75), ("B", "A"): (None, None, None)}
    (axis,) = overlap_matrix(["A", "B"], cells, title="recall").axes
    drawn = {(text.get_position(), text.get_text()) for text in axis.texts}
    assert drawn == {((1, 0), "0.50\n[0.25, 0.75]"), ((0, 1), "-")}
    (image,) = axis.images
    assert np.ma.filled(image.get_array(), -1).tolist() == [[-1, 0.5], [-1, -1]]


def test_curves_have_a_panel_a_reference_and_a_colour_a_run():
    by_k = {"recall": [None, 0.5, 1.0], "recall_null_layer": [0.1, 0.2, 0.3]}
    none = {f"{name}_{end}": [None] * 3 for name in by_k for end in ("low", "high")}
    bounds = {"recall_low": [None, 0.25, 1.0], "recall_high": [None, 0.75, 1.0]}
    plain = Curves([], [1, 2, 4], {}, {**by_k, **none}, n=None)
    line = Curves([], [1, 2, 4], {}, {**by_k, **none, **bounds}, n=17)
    panels = {"A": {"B": line, "C": plain}, "B": {"A": line}, "C": {"A": line}}
    figure = recall_over_k(panels)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["reference A", "reference B", "reference C"]
    assert [len(axis.lines) for axis in shown] == [4, 2, 2]  # recall and null of every run
    assert [len(axis.collections) for axis in shown] == [1, 1, 1]  # bands
    corners = shown[1].collections[0].get_paths()[0].vertices.tolist()
    assert [2, 0.25] in corners and [2, 0.75] in corners and [4, 1] in corners
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["run A, n = 17", "run B, n = 17", "run C, n = unknown", "null, layers kept"]
    assert "bands: 95%" in figure.get_suptitle()
    without = recall_over_k({"A": {"B": plain}})
    assert not any(axis.collections for axis in without.axes)
    assert "bands" not in without.get_suptitle()
    assert shown[1].lines[0].get_color() == shown[2].lines[0].get_color()
    assert shown[0].lines[0].get_color() != shown[1].lines[0].get_color()


def test_sets_have_letters():
    assert [letter(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA")
    ]


@pytest.fixture
def files(tmp_path):
    """Two tuned models, the untuned one, and a file of each other tool's."""
    rng, names = np.random.default_rng(0), {}
    for n, name in enumerate(("one", "two", "untuned")):
        adapter = {} if name == "untuned" else {"adapter_sha256": name}
        each = head_scores(per_example=rng.random((6, 3, 4)) / (n + 1), provenance=adapter)
        names[name] = tmp_path / f"{name}.json"
        each.save(names[name])
    for kind in ("wu2024", "qrhead", "duo"):
        names[kind] = tmp_path / f"{kind}{exchange.ENDINGS[kind][-1]}"
        exchange.write(HeadScores.load(names["one"]), names[kind], kind)
    return {name: str(file) for name, file in names.items()}


def test_show_tells_of_files_of_every_kind(files, capsys):
    headset(HeadsetConfig(files=[files[n] for n in ("one", "wu2024", "qrhead", "duo")], k=5))
    shown = capsys.readouterr().out
    assert "copy, teacher_forced, exact, 3 layers x 4 heads, n = 6 examples" in shown
    assert "wu2024_code, greedy, exact, 3 layers x 4 heads, n = 6 examples" in shown
    assert "query_focused, prefill, exact, 3 layers x 4 heads, n unknown" in shown
    assert "duo, optimised, exact, 3 layers x 4 KV heads, n unknown" in shown
    assert "imported from wu2024.json.gz: model, data and prompt are unknown" in shown


def test_every_set_has_the_threshold_of_its_scorer(files, tmp_path, capsys):
    headset(HeadsetConfig(files=[files[n] for n in ("one", "qrhead", "duo")], k=5))
    shown = capsys.readouterr().out.splitlines()
    above = [line.split(":")[0].strip() for line in shown if "above" in line]
    assert above == ["above 0.1", "above 0.2", "above 0.5"]
    needle = [str(tmp_path / f"needle-{n}.json") for n in range(2)]
    for n, name in enumerate(needle):
        rows = np.random.default_rng(n).random((6, 3, 4)) / 10
        adapter = {"adapter_sha256": name}
        head_scores(per_example=rows, scorer="copy_needle", provenance=adapter).save(Path(name))
    headset(HeadsetConfig(action="compare", files=needle, k=5))
    assert (
        "copy_needle, teacher_forced, exact; 3 layers x 4 heads; tau 0.02"
        in capsys.readouterr().out
    )
    out = tmp_path / "mean.json"
    headset(HeadsetConfig(action="average", files=needle, k=5, out=str(out)))
    assert "above 0.02: " in capsys.readouterr().out
    assert HeadScores.load(out).reliability["tau"] == 0.02
    headset(HeadsetConfig(files=needle, k=5, tau=0.0))
    assert capsys.readouterr().out.count("above 0: ") == 2


def test_a_scorer_without_a_threshold_needs_one(tmp_path, capsys):
    file = tmp_path / "mine.json"
    head_scores(*RUN, scorer="mine").save(file)
    with pytest.raises(InputError, match=r"mine\.json: scorer=mine is not known here; give tau="):
        headset(HeadsetConfig(files=[str(file)], k=5))
    headset(HeadsetConfig(files=[str(file)], k=5, tau=0.3))
    assert "above 0.3: 3 of 12 heads" in capsys.readouterr().out


def test_average_prints_the_ceiling_and_the_reliability(files, tmp_path, capsys):
    out = tmp_path / "reference.json"
    names = [files["one"], files["two"]]
    given = HeadsetConfig(
        action="average", files=names, base=files["untuned"], out=str(out), tau=0.3, k=5
    )
    headset(given)
    shown = capsys.readouterr().out
    assert "seed against seed at tau 0.3, k 5: recall " in shown
    assert "split half at tau 0.3, k 5: recall " in shown
    assert "n = 6 examples in 20 splits" in shown
    loaded = HeadScores.load(out)
    assert loaded.base_scores is not None
    assert loaded.reliability["split_half"]["n"] == 6
    with pytest.raises(InputError, match=r"reference\.json exists"):
        headset(given)


def test_average_of_other_tools_files_is_an_imported_set(files, tmp_path, caplog):
    theirs = {"0-0": [0.5, 0.1], "0-1": [0.2, 0.4]}
    names: list[str] = []
    for n in range(2):
        names.append(str(tmp_path / f"wu-{n}.json"))
        (tmp_path / f"wu-{n}.json").write_text(json.dumps({**theirs, "0-0": [n / 2, 0.1]}))
    config = {"action": "average", "out": str(tmp_path / "mean.json"), "k": 2}
    headset(HeadsetConfig(files=names, **config))
    assert "are unknown: see that they are one model's" in caplog.text
    loaded = HeadScores.load(tmp_path / "mean.json")
    assert loaded.scores[0].tolist() == pytest.approx([0.175, 0.3])
    assert [m["imported_from"] for m in loaded.provenance["members"]] == ["wu-0.json", "wu-1.json"]
    with pytest.raises(InputError, match="would be compared with itself"):
        headset(HeadsetConfig(action="compare", files=[names[0], str(tmp_path / "mean.json")], k=2))


def test_compare_prints_and_writes(files, tmp_path, capsys):
    out = tmp_path / "compared"
    names = [files["one"], files["two"]]
    headset(HeadsetConfig(action="compare", files=names, base=files["untuned"], k=5, out=str(out)))
    shown = capsys.readouterr().out
    assert f"  A  {files['one']}: " in shown
    assert f"({files['untuned']})" in shown.replace("\n", "")
    assert sorted(p.name for p in out.iterdir()) == ["compare.csv", "compare.json", "compare.png"]


@pytest.mark.parametrize("to", exchange.KINDS)
def test_convert_there_and_back(files, tmp_path, caplog, to):
    caplog.set_level(logging.INFO, "sce")
    there = str(tmp_path / f"there{exchange.ENDINGS[to][0]}")
    headset(HeadsetConfig(action="convert", files=[files["one"]], to=to, out=there))
    assert f"wrote {there}" in caplog.text
    assert ("does not hold" in caplog.text) == (to != "sce")
    back = str(tmp_path / "back.json")
    headset(HeadsetConfig(action="convert", files=[there], to="sce", out=back))
    np.testing.assert_allclose(
        exchange.read(tmp_path / "back.json").scores,
        exchange.read(tmp_path / "one.json").scores,
        atol=2e-9,
    )


def test_a_file_with_some_heads_is_converted_with_the_shape(tmp_path):
    (tmp_path / "top.json").write_text('[["2-1", 0.9], ["0-3", 0.2]]')
    given = {"action": "convert", "files": [str(tmp_path / "top.json")], "to": "sce"}
    out = str(tmp_path / "whole.json")
    with pytest.raises(InputError, match="head 0-0 is missing"):
        headset(HeadsetConfig(**given, out=out))
    with pytest.raises(InputError, match="head 0-3 is out of range"):
        headset(HeadsetConfig(**given, out=out, shape=[3, 3]))
    headset(HeadsetConfig(**given, out=out, shape=[3, 4]))
    assert HeadScores.load(tmp_path / "whole.json").scores[2, 1] == 0.9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action": "compute"}, "action=compute: choose from show, average, compare, convert"),
        ({"files": []}, "name at least one"),
        ({"files": ["a", "b", "a"]}, "files: a is named twice"),
        ({"action": "compare"}, "at least two"),
        ({"action": "average", "files": ["a", "b"]}, "action=average needs out=FILE"),
        ({"action": "convert", "to": "duo"}, "action=convert needs out=FILE"),
        ({"action": "convert", "out": "b"}, "to=None: choose from sce, wu2024, qrhead, duo"),
        ({"action": "convert", "out": "b", "to": "xml"}, "to=xml: choose from sce, wu2024"),
        ({"action": "convert", "out": "b", "to": "duo", "files": ["a", "b"]}, "takes one file"),
        ({"tau": float("-inf")}, "tau must be a number, got -inf"),
        ({"tau": float("nan")}, "tau must be a number, got nan"),
        ({"tau": float("inf")}, "tau must be a number, got inf"),
        ({"k": 0}, "k must be >= 1, got 0"),
        ({"shape": [3]}, r"shape must be \[layers,heads\]"),
        ({"shape": [3, 0]}, r"shape must be \[layers,heads\]"),
    ],
)
def test_bad_values_are_one_line(values, message):
    with pytest.raises(InputError, match=message) as error:
        HeadsetConfig(**{"files": ["a"], **values})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": "x"}, "out=x: action=show does not use it, but average, compare, convert do"),
        ({"base": "x"}, "base=x: action=show does not use it, but average, compare do; drop base="),
        ({"to": "duo"}, "to=duo: action=show does not use it, but convert does; drop to="),
        ({"action": "average", "out": "x", "to": "sce"}, "to=sce: action=average does not use it"),
        ({"action": "compare", "to": "sce"}, "to=sce: action=compare does not use it"),
        ({"action": "convert", "base": "x"}, "base=x: action=convert does not use it"),
        ({"action": "convert", "tau": 0.0}, "tau=0.0: action=convert does not use it, but show"),
        ({"action": "convert", "k": 5}, "k=5: action=convert does not use it, but show, average"),
    ],
)
def test_an_option_that_the_action_does_not_use_is_refused(values, message):
    convert = {"to": "sce", "out": "x.json"} if values.get("action") == "convert" else {}
    files = ["a", "b"] if values.get("action") in ("average", "compare") else ["a"]
    with pytest.raises(InputError) as error:
        headset(HeadsetConfig(**{"files": files, **convert, **values}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_option_is_used_by_some_action_and_refused_by_the_others():
    for_all = {"action", "files", "shape", "debug"}
    assert set(HEADSET_OPTIONS) == {field.name for field in fields(HeadsetConfig)} - for_all
    assert {action for actions in HEADSET_OPTIONS.values() for action in actions} == {
        *("show", "average", "compare", "convert")
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 13}, "k=13, but .* has 12 heads"),
        ({"action": "convert", "to": "sce", "out": "two.json"}, "two.json exists"),
        (
            {"action": "convert", "to": "duo", "out": "x.json"},
            "name of a duo file ends in .tsv",
        ),
        ({"action": "compare", "out": "two.json"}, "out=two.json exists"),
        ({"action": "convert", "to": "duo", "out": "two.json/x.tsv"}, "cannot be written"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    files, tmp_path, monkeypatch, values, message
):
    monkeypatch.chdir(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    names = ["one.json", "two.json"][: 2 if values.get("action") == "compare" else 1]
    options = {} if values.get("action") == "convert" else {"k": 5}
    with pytest.raises(InputError, match=message):
        headset(HeadsetConfig(**{"files": names, **options, **values}))
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_defaults_in_yaml_mirror_those_in_the_code_and_help_names_every_value():
    from sce.config import CONF

    composed = configured("headset", HeadsetConfig, ["files=[a.json]", "shape=[3,4]"])
    assert composed == HeadsetConfig(files=["a.json"], shape=[3, 4])
    assert configured("headset", HeadsetConfig, ["files=[a]"]) == HeadsetConfig(files=["a"])
    text = (CONF / "hydra" / "help" / "headset.yaml").read_text()
    for name in asdict(composed):
        assert f"\n    {name} " in text


def test_the_kinds_in_the_config_are_those_that_can_be_written():
    for kind in exchange.KINDS:
        HeadsetConfig(action="convert", files=["a"], out="b", to=kind)
