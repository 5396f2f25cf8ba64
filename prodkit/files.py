"""Files that are written whole, the old text or the new, never half of it; and room kept on the disk for the last."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["Reserve", "publish", "share_as", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Replace a file, for good: a crash or a full disk leaves the old one, and an error nothing beside it.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        publish(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def publish(draft: Path, path: Path) -> None:
    """Force a finished file to the disk, then give it its name, for good: what has the name is whole.

    Raises:
        OSError: it cannot be.
    """
    _force(draft)
    draft.replace(path)
    _force(path.parent)  # the name must last as well as the bytes


def share_as(place: Path, handle: int) -> None:
    """Let the group use an open file of ours as it may use a folder or another file: nobody else gets anything."""
    with suppress(OSError):  # it is somebody else's, and is as that one made it
        os.fchmod(handle, 0o600 | place.stat().st_mode & 0o060)


def _force(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Reserve:
    """A file that holds room on the disk, to be dropped when there is no other left.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.held = path, 0

    def hold(self, size_bytes: int) -> None:
        """Hold at least so much.

        Raises:
            OSError: there is not so much left; what was held before still is.
        """
        if size_bytes <= self.held or not hasattr(os, "posix_fallocate"):
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(handle, 0, size_bytes)
        finally:
            os.close(handle)
        self.held = size_bytes

    def drop(self) -> None:
        """Give the room back."""
        self._path.unlink(missing_ok=True)
        self.held = 0
