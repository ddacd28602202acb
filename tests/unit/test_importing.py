"""Garbage is looked for again once the heavy modules are there, whatever happened."""

import gc

import pytest

from sce.importing import importing


def test_the_collector_is_as_it_was_before():
    with importing():
        assert not gc.isenabled()
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_so_after_a_module_that_is_not_there():
    with pytest.raises(ModuleNotFoundError), importing():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
