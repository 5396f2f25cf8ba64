"""Files that are written whole."""

from __future__ import annotations

import os
import stat

import pytest

from prodkit.files import write_text


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    """The new text is there to the character, with the rights of any new file."""
    path = tmp_path / "a.json"
    for text in ("old", "new\r\n\u2028é"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "plain"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    """On a full disk, or with text that cannot be encoded, the old file stays and no draft is left."""
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UnicodeEncodeError, match="surrogates"):
        write_text(path, "\ud800")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"
