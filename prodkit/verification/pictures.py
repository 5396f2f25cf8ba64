"""What a figure draws, whatever wrote it down and how."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from typing import Any

import numpy as np

__all__ = ["figure_digest", "plain_svg"]


def figure_digest(picture: Any) -> str:
    """What a figure draws, in one line: its size and a digest of its pixels, whatever wrote them and how.

    Args:
        picture: PNG or JPEG, in base64.

    Returns:
        ``drawn ...`` or, for what is no picture, ``no picture: ...``.
    """
    from matplotlib.image import imread

    try:
        content = base64.b64decode("".join(picture.split()), validate=True)
        form = "jpeg" if content[:2] == b"\xff\xd8" else "png"
        pixels = np.ascontiguousarray(imread(io.BytesIO(content), format=form))
    except Exception as error:  # whatever a decoder says of garbage
        return f"no picture: {type(error).__name__}"
    digest = hashlib.sha256(f"{pixels.dtype}".encode() + pixels.tobytes()).hexdigest()
    return f"drawn {pixels.shape[1]}x{pixels.shape[0]}, {digest[:12]}"


def plain_svg(text: str) -> str:
    """A drawing without its date, and with its ids, which are random, numbered in order."""
    text = re.sub(r"<dc:date>.*?</dc:date>", "", text, flags=re.S)
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))
    for number, name in enumerate(names):
        text = re.sub(rf'(["#]){re.escape(name)}(?=["\)])', rf"\g<1>id-{number}", text)
    return text
