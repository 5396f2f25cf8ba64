"""The store's files: whole and synced when they appear, compared byte for byte when they are read."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from prodkit.errors import ArtifactError, ParameterError
from prodkit.files import publish, share_as

__all__ = ["Artifacts", "content_name", "signature"]

_KEY = "PRODKIT_SIGNING_KEY"
_SHORTEST_KEY = 16
_STALE_SECONDS = 3600.0  # an unfinished file older than this was left by a process that was killed


def signature(content: bytes) -> str:
    """HMAC-SHA256 of some bytes under ``PRODKIT_SIGNING_KEY``; empty when no key is set.

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
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()


class Artifacts:
    """Files under one folder or fsspec URL, each named after the SHA-256 of its bytes.

    Local folders and files are made for their owner alone, whatever the umask, and for the group where somebody has
    given it the folder.

    Args:
        url: the folder or fsspec URL.
        create: whether to make a folder that is not there, and to remove what killed processes left in it.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._files, LocalFileSystem)
        if self._local and create:
            for folder in (self._root, *map(self._path, ("versions", "probes", "incoming"))):
                _make_private(Path(folder))
            self._sweep()

    def _sweep(self) -> None:
        """Remove old unfinished files. The disk says what time it is: the clock of this process may be ahead."""
        incoming = Path(self._path("incoming"))
        with suppress(OSError):  # what cannot be removed now can be later
            if not (leftovers := list(incoming.iterdir())):
                return
            with tempfile.TemporaryFile(dir=incoming) as probe:
                now = os.fstat(probe.fileno()).st_mtime
            for left in leftovers:
                with suppress(FileNotFoundError):  # somebody else swept it, or it has just been published
                    if now - left.stat().st_mtime > _STALE_SECONDS:
                        left.unlink()

    def publish(self, artifact: bytes, *, kind: str = "versions") -> str:
        """Write the bytes under their content name, and return that, relative to the root.

        Locally they are written aside, synced and renamed; an object store does the same by itself.
        """
        location = content_name(hashlib.sha256(artifact).hexdigest(), kind=kind)
        if not self._local:
            self._files.pipe_file(self._path(location), artifact)
            return location
        handle, name = tempfile.mkstemp(dir=self._path("incoming"))  # mode 0600
        share_as(Path(self._path("versions")), handle)
        with os.fdopen(handle, "wb") as file:
            file.write(artifact)
        publish(Path(name), Path(self._path(location)))
        return location

    def exists(self, digest: str) -> bool:
        """Whether there is a file of these bytes now."""
        self._files.invalidate_cache()
        return bool(self._files.exists(self._path(content_name(digest))))

    def remove(self, digest: str, *, kind: str = "versions") -> None:
        """Remove the file of these bytes, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(content_name(digest, kind=kind)))

    def lend(self, digest: str, folder: Path) -> None:
        """Show a file under the same name below another folder: as a link if it is local, else as a copy.

        A file that is missing here will be missing there.
        """
        here, there = self._path(content_name(digest)), folder / content_name(digest)
        there.parent.mkdir(parents=True, exist_ok=True)
        if self.exists(digest) and not there.exists():
            if self._local:
                there.symlink_to(Path(here).resolve())
            else:
                self._files.get_file(here, str(there))

    def verified(
        self, digest: str, *, signed: str | None, vouched: bytes, name: str, kind: str = "versions"
    ) -> bytes:
        """The bytes of a file, if they are the very ones that were published.

        Args:
            digest: SHA-256 that the bytes must have; the file lies under its name.
            signed: signature by ``PRODKIT_SIGNING_KEY``; empty if they were published without one, None if
                only the digest is to be compared.
            vouched: what the signature is of.
            name: what to call it in an error.
            kind: the folder that it lies in.

        Raises:
            ArtifactError: the file is missing, cannot be read, differs, is not signed with the key that is set, or is
                signed and no key is set.
            ParameterError: the key is malformed.
        """
        location = content_name(digest, kind=kind)
        try:
            artifact: bytes = self._files.cat_file(self._path(location))
        except OSError as error:
            rule, fix = "must be readable", "Restore the file, or promote another version."
            raise ArtifactError(
                name, rule=rule, value=type(error).__name__, place=location, fix=fix
            ) from error
        actual = hashlib.sha256(artifact).hexdigest()
        if actual != digest:
            rule = f"must have the SHA-256 {digest[:12]}... that was registered"
            fix = "The file was changed or damaged: restore it, or promote another version."
            raise ArtifactError(name, rule=rule, value=f"{actual[:12]}...", place=location, fix=fix)
        expected = "" if signed is None else signature(vouched)
        if signed and not expected:
            rule, fix = f"must be verified with {_KEY}, since it is signed", f"export {_KEY}=..., its own."
            raise ArtifactError(name, rule=rule, value="no key in the environment", place=location, fix=fix)
        if expected and not hmac.compare_digest(expected.encode(), (signed or "").encode()):
            value = "a signature by another key" if signed else "no signature"
            fix = "Set the key that signed it; or, if you vouch for it, sign it: prodkit models sign VERSION."
            raise ArtifactError(
                name, rule=f"must be signed with {_KEY}", value=value, place=location, fix=fix
            )
        return artifact

    def _path(self, location: str) -> str:
        return f"{self._root}/{location}"


def content_name(digest: str, *, kind: str = "versions") -> str:
    """Where the bytes of this SHA-256 lie, relative to the root; ArtifactError when it is none."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ArtifactError("digest", rule="must be a SHA-256 in hexadecimal digits", value=repr(digest))
    return f"{kind}/{digest}.joblib"


def _make_private(folder: Path) -> None:
    """Make a folder for its owner alone, if it is not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
