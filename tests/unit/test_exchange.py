"""Other tools' files of head scores: read, written, guessed, and refused with the reason."""

import gzip
import hashlib
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import SHARED_DATA
from sce.errors import InputError
from sce.headsets.exchange import ENDINGS, KINDS, guess, read, write
from sce.records import HeadScores
from sce.stats import head_set

SMALL = {"0-0": [0.5, 0.1], "0-1": [0, 1.2], "1-0": [0.2, 0.2], "1-1": [0.0, 0.0]}
QR = [["1-0", 0.4], ["0-1", 0.3], ["0-0", 0.1], ["1-1", -0.2]]
DUO = "1.0e+00\t0.25\n0.0\t4.310607910156250000e-04\n"


def saved(folder: Path, name: str, content) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def own_set(per_example=None, scores=None, **changes) -> HeadScores:
    values = {
        "scorer": "copy",
        "mode": "teacher_forced",
        "match": "exact",
        "scores": np.nanmean(per_example, axis=0) if scores is None else scores,
        "num_examples": 7 if per_example is None else len(per_example),
        "per_example": per_example,
    }
    return HeadScores(**{**values, **changes})


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "num_runs", "above", "top"),
    [
        ("llama-2-7b-80k", 586, 33, ["16-19", "11-15", "8-26", "6-9", "7-12"]),
        ("Mistral-7B-v0.2-hf", 362, 43, ["18-0", "12-7", "12-6", "18-2", "18-3"]),
    ],
)
def test_published_files_give_the_published_heads(name, num_runs, above, top):
    file = SHARED_DATA / "wu2024" / f"{name}.json.gz"
    if not file.is_file():
        pytest.skip("no ../shared/data")
    found = read(file)
    assert (found.shape, found.num_examples) == ((32, 32), num_runs)
    assert head_set(found.scores, 0.1).sum() == above
    order = np.argsort(-found.scores, axis=None)[: len(top)]
    assert [f"{i // 32}-{i % 32}" for i in order] == top


def test_wu_et_al_s_lists_are_runs_by_heads(tmp_path):
    file = saved(tmp_path, "model.json", SMALL)
    found = read(file)
    assert (found.scorer, found.mode, found.match) == ("wu2024_code", "greedy", "exact")
    np.testing.assert_allclose(found.scores, [[0.3, 0.6], [0.2, 0]])
    np.testing.assert_allclose(found.per_example, [[[0.5, 0], [0.2, 0]], [[0.1, 1.2], [0.2, 0]]])
    assert found.num_examples == 2
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.provenance == {"imported_from": "model.json", "file_sha256": sha256}


def test_qrhead_s_pairs_and_duoattention_s_columns(tmp_path):
    found = read(saved(tmp_path, "qr.json.gz", QR))
    assert (found.scorer, found.mode) == ("query_focused", "prefill")
    np.testing.assert_array_equal(found.scores, [[0.1, 0.3], [0.4, -0.2]])
    assert (found.num_examples, found.per_example) == (0, None)
    found = read(saved(tmp_path, "full_attention_heads.tsv", DUO))
    assert (found.scorer, found.mode) == ("duo", "optimised")
    np.testing.assert_array_equal(found.scores, [[1, 0.25], [0, 0.00043106079101562500]])
    assert (found.num_examples, found.per_example) == (0, None)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", SMALL, "wu2024"),
        ("a.json", {}, "wu2024"),
        ("a.json", '{"0-0": [0.1, 0.2', "wu2024"),
        ("a.json", QR, "qrhead"),
        ("a.tsv", DUO, "duo"),
        ("a.txt", DUO, "duo"),
        ("one-column.tsv", "0.5\n0.1\n", "duo"),
        ("a.json", {"schema": "sce.heads/1"}, "sce"),
        ("a.json", {"something": 1}, "sce"),
        ("a.json", "nothing", "sce"),
    ],
)
def test_the_format_is_guessed_from_content_and_name(tmp_path, name, content, kind):
    file = saved(tmp_path, name, content)
    assert guess(file, file.read_text()) == kind


def test_what_is_no_known_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"notes\.txt: not a head set in any known format \(sce"):
        read(saved(tmp_path, "notes.txt", "some words"))
    with pytest.raises(InputError, match="kind=xml: choose from sce, wu2024, qrhead, duo"):
        read(tmp_path / "a", kind="xml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**SMALL, "1-1": [0.1]}, "head 1-1 has 1 scores, but head 0-0 has 2"),
        ({**SMALL, "1-1": []}, "head 1-1 has no list of scores"),
        ({**SMALL, "1-1": 0.5}, "head 1-1 has no list of scores"),
        ({**SMALL, "1-0": [0.1, None]}, "head 1-0 has the score null"),
        ({**SMALL, "1-0": [0.1, float("nan")]}, "head 1-0 has the score nan"),
        ({**SMALL, "1-0": [float("inf"), 0]}, "head 1-0 has the score inf"),
        ({**SMALL, "1-0": [10**400, 0]}, "head 1-0 has the score inf"),
        ({**SMALL, "1-0": ["0.1", 0]}, "head 1-0 has the score '0.1'"),
        ({**SMALL, "1-0": [True, 0]}, "head 1-0 has the score True"),
        ({**SMALL, "x": [0, 0]}, "'x' is no head: a head is named layer-head, as in 3-2"),
        ({**SMALL, "01-0": [0, 0]}, "'01-0' is no head"),
        ({"0-0": [0.1], "1-1": [0.2], "0-1": [0]}, "head 1-0 is missing"),
        ({"0-0": [0.1], "999999999-999999999": [0.2]}, "head 0-1 is missing"),
        ({}, "it holds no heads"),
        ('{"0-0": [0.1, 0.', "truncated: its JSON breaks off in line 1"),
        ('{"0-0": [0.1], "0-0": [0.2]}', "'0-0' stands in it twice"),
        ('{"0-0": [0.1],, }', "not JSON"),
    ],
)
def test_a_bad_file_of_wu_et_al_s_is_one_line_that_names_file_format_and_head(
    tmp_path, content, message
):
    with pytest.raises(InputError) as error:
        read(saved(tmp_path, "a.json", content))
    assert str(error.value).startswith(f"{tmp_path / 'a.json'}, read as wu2024: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", [*QR, ["0-0", 0.2]], "read as qrhead: head 0-0 stands in it twice"),
        ("a.json", [["0-0", 0.2, 1]], "entry 0 is"),
        ("a.json", [["0-0", None]], "head 0-0 has the score null"),
        ("a.json", [[3, 0.1]], "'3' is no head"),
        ("a.json", '[["0-0", 0.2], ["0-', "read as qrhead: truncated"),
        ("a.json", [], "it holds no heads"),
        ("a.tsv", "0.1\t0.2\n0.3\n", "read as duo: layer 1 has 1 columns, but layer 0 has 2"),
        ("a.tsv", "0.1\t0.2\n0.3\tx\n", "head 1-1 has the score 'x'"),
        ("a.tsv", "0.1\tnan\n", "head 0-1 has the score nan"),
        ("a.tsv", "\n", "it holds no heads"),
    ],
)
def test_a_bad_file_of_the_other_two_is_one_line(tmp_path, name, content, message):
    with pytest.raises(InputError) as error:
        read(saved(tmp_path, name, content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_say_so(tmp_path):
    for name, data, message in (
        ("a.json.gz", gzip.compress(json.dumps(SMALL).encode())[:-9], "gzip stream breaks off"),
        ("b.json.gz", b"no gzip", "cannot be read"),
        ("c.json", b"\xff\xfe", "not text in UTF-8"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(InputError, match="a folder"):
        read(tmp_path)


def test_heads_may_be_missing_only_where_the_shape_is_given(tmp_path, caplog):
    for content in ({"0-1": [0.5, 0.1]}, [["0-1", 0.3]]):
        file = saved(tmp_path, "top.json", content)
        with pytest.raises(InputError, match=r"head 0-0 is missing; .* shape=\[LAYERS,HEADS\]"):
            read(file)
        caplog.clear()
        found = read(file, shape=(2, 3))
        assert found.shape == (2, 3)
        assert np.flatnonzero(found.scores).tolist() == [1]
        assert "5 of 6 heads are not in the file and score 0" in caplog.text
        with pytest.raises(InputError, match=r"head 0-1 is out of range: shape=\[2,1\] has layers"):
            read(file, shape=(2, 1))


def test_a_file_of_another_shape_than_given_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds heads \(2, 2\), but shape=\[2, 4\]"):
        read(saved(tmp_path, "a.tsv", DUO), shape=(2, 4))
    own_set(scores=np.ones((2, 2))).save(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"holds heads \(2, 2\), but shape=\[3, 2\]"):
        read(tmp_path / "a.json", shape=(3, 2))


def test_our_own_files_come_back_as_they_were(tmp_path):
    own_set(np.random.default_rng(0).random((4, 2, 3))).save(tmp_path / "a.json")
    found = read(tmp_path / "a.json")
    assert (found.scorer, found.num_examples, found.provenance) == ("copy", 4, {})
    assert found.per_example is not None


per_examples = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-2, 2, width=64))
)


@settings(max_examples=60, deadline=None)
@given(per_examples, st.sampled_from(KINDS), st.booleans())
def test_what_is_written_comes_back_to_the_last_of_its_nine_digits(per_example, kind, gzipped):
    given_set = own_set(per_example)
    with tempfile.TemporaryDirectory() as folder:
        ending = ENDINGS[kind][-1 if gzipped else 0]
        file, again = Path(folder) / f"a{ending}", Path(folder) / f"b{ending}"
        write(given_set, file, kind)
        found = read(file, kind)
        assert found.shape == given_set.shape
        rounded = np.vectorize(lambda value: round(value, 9))
        if kind == "wu2024":
            np.testing.assert_array_equal(found.per_example, rounded(per_example))
        else:
            np.testing.assert_array_equal(found.scores, rounded(given_set.scores))
        write(found, again, kind)
        if kind != "sce":
            assert again.read_bytes() == file.read_bytes()


def test_the_best_head_comes_first_in_qrhead_s_file(tmp_path):
    write(own_set(scores=np.array([[0.1, 0.7], [0.7, -0.2]])), tmp_path / "a.json", "qrhead")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == [["0-1", 0.7], ["1-0", 0.7], ["0-0", 0.1], ["1-1", -0.2]]


def test_examples_that_were_not_kept_are_no_runs(tmp_path, caplog):
    per_example = np.array([[[0.2, 0.4]], [[np.nan, np.nan]], [[0.4, 0.0]]])
    caplog.set_level(logging.INFO, "sce")
    write(own_set(per_example), tmp_path / "a.json", "wu2024")
    assert json.loads((tmp_path / "a.json").read_text()) == {"0-0": [0.2, 0.4], "0-1": [0.4, 0.0]}
    assert "which examples were not kept" in caplog.text


@pytest.mark.parametrize(
    ("kind", "changes", "lost"),
    [
        ("wu2024", {}, "more than the mean of each head"),
        ("wu2024", {"base_scores": np.ones((1, 2))}, "the untuned model's scores"),
        ("qrhead", {}, "the number of examples, 7"),
        ("qrhead", {"reliability": {"tau": 0.1}}, "reliability"),
        ("qrhead", {"scorer": "duo", "mode": "optimised"}, "its heads are KV heads"),
        ("duo", {}, "its columns are query heads"),
        ("duo", {}, "that they are copy, teacher_forced, exact"),
    ],
)
def test_what_a_format_cannot_hold_is_logged(tmp_path, caplog, kind, changes, lost):
    caplog.set_level(logging.INFO, "sce")
    head_scores = own_set(scores=np.array([[0.1, 0.2]]), **changes)
    write(head_scores, tmp_path / f"a{ENDINGS[kind][0]}", kind)
    assert lost in caplog.text
    assert len(caplog.records) == 1


def test_no_file_is_written_over(tmp_path):
    head_scores = own_set(scores=np.array([[0.1, 0.2]]))
    (tmp_path / "a.json").write_text("mine")
    (tmp_path / "b.npz").write_text("mine")
    for name, kind in (("a.json", "sce"), ("a.json", "qrhead"), ("b.json", "sce")):
        with pytest.raises(InputError, match="exists; name another file or delete it"):
            write(head_scores, tmp_path / name, kind)
    assert {p.read_text() for p in tmp_path.iterdir()} == {"mine"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.npz", "sce"), ("a.json.gz", "sce"), ("a.tsv", "qrhead"), ("a.json", "duo")],
)
def test_a_name_of_another_kind_of_file_is_refused(tmp_path, name, kind):
    with pytest.raises(InputError, match=f"the name of a {kind} file ends in"):
        write(own_set(scores=np.array([[0.1, 0.2]])), tmp_path / name, kind)
    assert not list(tmp_path.iterdir())


def test_an_imported_file_that_became_ours_can_be_loaded(tmp_path):
    for name, content in (("qr.json", QR), ("wu.json", SMALL)):
        imported = read(saved(tmp_path, name, content))
        write(imported, tmp_path / f"ours-{name}", "sce")
        found = HeadScores.load(tmp_path / f"ours-{name}")
        assert found.num_examples == imported.num_examples
        assert found.provenance == imported.provenance
        np.testing.assert_allclose(found.scores, imported.scores, atol=1e-9)
