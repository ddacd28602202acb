"""Files are written whole or not at all, and a place that takes none is refused beforehand."""

import os

import numpy as np
import pytest

from sce.errors import InputError
from sce.outputs import require_writable, whole
from sce.records import HeadScores, write_json


def test_what_is_written_takes_the_file_s_place_at_the_end(tmp_path):
    file = tmp_path / "deep" / "f.txt"
    with whole(file) as part:
        part.write_text("one")
        assert not file.exists()
    with whole(file) as part:
        part.write_text("two")
        assert file.read_text() == "one"
    assert [each.name for each in file.parent.iterdir()] == ["f.txt"]
    assert file.read_text() == "two"


def test_what_fails_leaves_the_file_that_was_there_and_nothing_else(tmp_path):
    file = tmp_path / "f.json"
    write_json(file, {"a": 1})
    before = file.read_bytes()
    with pytest.raises(KeyError), whole(file) as part:
        part.write_text("half")
        raise KeyError
    assert [each.name for each in tmp_path.iterdir()] == ["f.json"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_permissions_are_those_of_any_file_of_the_user_s(tmp_path, mask):
    before = os.umask(mask)
    try:
        HeadScores("copy", "greedy", "exact", np.ones((1, 2)), 1, np.ones((1, 1, 2))).save(
            tmp_path / "h.json"
        )
    finally:
        os.umask(before)
    for file in (tmp_path / "h.json", tmp_path / "h.npz"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_place_that_takes_no_file_is_refused_and_a_good_one_is_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError, match=r"^out=x: nothing can be written in .*file"):
            require_writable("out=x", folder)
    require_writable("out=x", tmp_path / "new" / "deeper")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
