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

from prodkit.errors import ArtifactError, ParameterError

__all__ = ["Artifacts", "signature"]

_KEY = "PRODKIT_SIGNING_KEY"
_SHORTEST_KEY = 16
_STALE_SECONDS = 3600.0  # an unfinished file older than this was left by a process that was killed


def signature(artifact: bytes) -> str:
    """HMAC-SHA256 of the bytes under ``PRODKIT_SIGNING_KEY``; empty when no key is set.

    Raises:
        ParameterError: the key is set, but too short to be one, or has blanks around it.
    """
    key = os.environ.get(_KEY)
    if key is None:
        return ""
    if len(key) < _SHORTEST_KEY or key != key.strip():
        raise ParameterError(
            _KEY,  # of the value nothing is shown but its length
            rule=f"must have {_SHORTEST_KEY} or more characters, and no blanks around them",
            value=f"{len(key)} characters" + (", with blanks around them" if key != key.strip() else ""),
            place="the environment",
            fix="Such as: export PRODKIT_SIGNING_KEY=$(openssl rand -hex 32). Unset it to work without signatures.",
        )
    return hmac.new(key.encode(), artifact, hashlib.sha256).hexdigest()


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

    def verified(self, location: str, *, digest: str, signed: str | None, name: str) -> bytes:
        """The bytes of a file, if they are the very ones that were published.

        Args:
            location: as :meth:`publish` returned it.
            digest: SHA-256 that the bytes must have.
            signed: signature by ``PRODKIT_SIGNING_KEY``; empty if they were published without one, None if
                only the digest is to be compared.
            name: what to call it in an error.

        Raises:
            ArtifactError: the file is missing, cannot be read, differs, is not signed with the key that is set, or is
                signed and no key is set.
            ParameterError: the key is malformed.
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
        if signed is None:
            return artifact
        expected = signature(artifact)
        if signed and not expected:
            raise ArtifactError(
                name,
                rule=f"must be verified with {_KEY}, since it is signed",
                value="no key in the environment",
                place=location,
                fix=f"export {_KEY}=..., the one that it was registered with.",
            )
        if expected and not hmac.compare_digest(expected.encode(), signed.encode()):
            raise ArtifactError(
                name,
                rule=f"must be signed with {_KEY}",
                value="a signature by another key" if signed else "no signature",
                place=location,
                fix="Set the key that signed it; or, if you vouch for it, sign it: prodkit models sign VERSION.",
            )
        return artifact

    def _path(self, location: str) -> str:
        return f"{self._root}/{location}"
