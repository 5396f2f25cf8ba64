"""A model that is led by a file, so that a test can spoil it in the process that serves it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tables import version_of

from prodkit.models.bundle import pack, unpack

__all__ = ["Led", "led_version"]


class Led:
    """Answers as another model does, after the mood that the file says: ``sleep SECONDS``, ``raise`` or ``nan``."""

    def __init__(self, model: Any, mood: Path) -> None:
        self.model, self.mood, self.classes_ = model, mood, np.array([0, 1])

    def predict_proba(self, columns: Any) -> np.ndarray:
        """The other's shares, if the mood allows."""
        words = self.mood.read_text().split() if self.mood.exists() else []
        if words[:1] == ["raise"]:
            raise ArithmeticError("the mood is bad")
        if words[:1] == ["sleep"]:
            time.sleep(float(words[1]))
        shares = np.asarray(self.model.predict_proba(columns), dtype=float)
        return np.full_like(shares, np.nan) if words[:1] == ["nan"] else shares


def led_version(mood: Path, number: int = 2) -> tuple[bytes, dict[str, Any]]:
    """A version of the orders whose model is led by this file; there is no compiled path for it."""
    artifact, manifest = version_of(number)
    bundle = unpack(artifact)
    return pack(replace(bundle, model=Led(bundle.model, mood))), manifest
