"""The notebooks decide what they decided, by the same figures; the year's record is compared in test_story."""

import golden
import pytest


@pytest.mark.parametrize("name", golden.NOTEBOOKS)
def test_a_notebook_decides_what_is_on_record(name, tmp_path):
    """Run with its defaults, a notebook gives the outcome, the action, the evidence and the figures of before."""
    expected = golden.on_record("notebooks")[name]
    assert golden.differences(expected, golden.of_notebook(name, tmp_path / "out")) == []
