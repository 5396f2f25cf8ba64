"""The store's files: whole and synced when they appear, compared byte for byte when they are read."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from prodkit.errors import ArtifactError

__all__ = ["Artifacts", "signature"]

_STALE_SECONDS = 3600.0  # an unfinished file older than this was left by a process that was killed


def signature(artifact: bytes) -> str:
    """HMAC-SHA256 of the bytes under ``PRODKIT_SIGNING_KEY``; empty when no key is set."""
    key = os.environ.get("PRODKIT_SIGNING_KEY", "")
    return hmac.new(key.encode(), artifact, hashlib.sha256).hexdigest() if key else ""


class Artifacts:
    """Files under one folder or fsspec URL, each named after the SHA-256 of its bytes."""

    def __init__(self, url: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._files, LocalFileSystem)
        if self._local:
            for folder in ("versions", "incoming"):
                Path(self._root, folder).mkdir(parents=True, exist_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        for left in Path(self._root, "incoming").iterdir():
            try:
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink()
            except FileNotFoundError:  # somebody else swept it, or it has just been published
                continue

    def publish(self, artifact: bytes) -> str:
        """Write the bytes under their content name, and return that, relative to the root.

        Locally they are written aside, synced and renamed; an object store does the same by itself.
        """
        location = f"versions/{hashlib.sha256(artifact).hexdigest()}.joblib"
        if not self._local:
            self._files.pipe_file(self._path(location), artifact)
            return location
        aside = Path(self._root, "incoming", uuid.uuid4().hex)
        with aside.open("wb") as file:
            file.write(artifact)
            file.flush()
            os.fsync(file.fileno())
        final = Path(self._path(location))
        aside.replace(final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name must last as well as the bytes
        finally:
            os.close(folder)
        return location

    def exists(self, location: str) -> bool:
        """Whether there is such a file now."""
        self._files.invalidate_cache()
        return bool(self._files.exists(self._path(location)))

    def remove(self, location: str) -> None:
        """Remove a file, if it is there."""
        if self.exists(location):
            self._files.rm_file(self._path(location))

    def lend(self, location: str, folder: Path) -> None:
        """Show a file under the same name below another folder: as a link if it is local, else as a copy.

        A file that is missing here will be missing there.
        """
        there = folder / location
        there.parent.mkdir(parents=True, exist_ok=True)
        if self.exists(location) and not there.exists():
            if self._local:
                there.symlink_to(Path(self._path(location)).resolve())
            else:
                self._files.get_file(self._path(location), str(there))

    def verified(self, location: str, *, digest: str, signed: str, name: str) -> bytes:
        """The bytes of a file, if they are the very ones that were published.

        Args:
            location: as :meth:`publish` returned it.
            digest: SHA-256 that the bytes must have.
            signed: signature that they must have, if ``PRODKIT_SIGNING_KEY`` is set.
            name: what to call it in an error.

        Raises:
            ArtifactError: the file is missing, cannot be read, differs, or is not signed with the key.
        """
        try:
            artifact: bytes = self._files.cat_file(self._path(location))
        except OSError as error:
            raise ArtifactError(
                name,
                rule="must be readable",
                value=type(error).__name__,
                place=location,
                fix="Restore the file, or promote another version.",
            ) from error
        found = hashlib.sha256(artifact).hexdigest()
        if found != digest:
            raise ArtifactError(
                name,
                rule=f"must have the SHA-256 {digest[:12]}... that was registered",
                value=f"{found[:12]}...",
                place=location,
                fix="The file was changed or damaged: restore it, or promote another version.",
            )
        if (expected := signature(artifact)) and not hmac.compare_digest(expected, signed):
            raise ArtifactError(
                name,
                rule="must be signed with PRODKIT_SIGNING_KEY",
                value="another signature" if signed else "no signature",
                place=location,
                fix="Register it again with the key set, or unset the key.",
            )
        return artifact

    def _path(self, location: str) -> str:
        return f"{self._root}/{location}"
