"""A small share of the benchmark of stories: each told through the functions that the notebooks call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import stories


@pytest.mark.parametrize("kind", ["nothing happens", "duplicated rows"])
def test_a_story_ends_as_it_should(kind, tmp_path):
    """Nothing is done where nothing is wrong, and a broken feed is held, on real weather."""
    found = stories.told(kind, stories.TABLES["weather"](), 0, folder=tmp_path, versions={})
    assert found.action in stories.KINDS[kind].right
