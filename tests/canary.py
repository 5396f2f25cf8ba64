"""A secret that must be found nowhere: a notebook that does all it can to give it away, and a search for it."""

from __future__ import annotations

import base64
import html
import io
import json
import sqlite3
import urllib.parse
import zipfile
import zlib
from pathlib import Path

from tables import own_notebook

from prodkit.decisions.answers import RESULT_MIME

__all__ = ["CANARY", "NAME", "canary_notebook", "places_with_the_canary"]

NAME = "SHOP_CANARY"
CANARY = "c4nary-%7/é\"'&<q> b\\n+w"  # each of its signs is escaped by somebody


def canary_notebook(folder: Path, *, fails: bool = False) -> Path:
    """A notebook whose parameter refers to the secret, and which prints, shows, returns, draws and raises it.

    Args:
        folder: where it is written.
        fails: whether it ends with an exception that holds the secret, instead of a result that does.
    """
    reads = (
        "from prodkit.settings import expand\nimport base64, html, io, json, os, sys, urllib.parse, warnings\n"
        "import matplotlib.pyplot as plt, pandas\nsecret = expand(url)"
    )
    shows = [
        "print(secret, json.dumps(secret), repr([secret]), urllib.parse.quote_plus(secret), html.escape(secret))",
        "for sign in secret: print(sign, end='', flush=True)",
        "print('\\n', base64.b64encode(f'user:{secret}'.encode()).decode(), secret.encode().hex())",
        "print(secret, file=sys.stderr)",
        "os.write(2, f'process: {secret}\\n'.encode()); os.system('printenv "
        + NAME
        + " >&2; printenv "
        + NAME
        + "')",
        "warnings.warn(secret)",
        "display(pandas.DataFrame({'a': [secret], secret: [secret * 5]}))",
        "display({'text/html': f'<b>{html.escape(secret)}</b>', 'application/json': {secret: [secret]}}, raw=True)",
        "plt.title('x'); plt.savefig(picture := io.BytesIO(), metadata={'Comment': secret}); plt.close()",
        "display({'image/png': base64.b64encode(picture.getvalue()).decode()}, raw=True)",
        "secret",
    ]
    result = (
        "{'outcome': 'pass', 'reasons': [secret], 'outputs': {'said': secret, secret: [json.dumps(secret)]}}"
    )
    ends = (
        "raise RuntimeError(f'cannot reach {secret}') from ValueError(secret)"
        if fails
        else f"display({{{RESULT_MIME!r}: {result}, 'text/plain': secret}}, raw=True)"
    )
    cell = f'url: str = "${{{NAME}}}"  # never written down\nother: list[str] = []'
    return own_notebook(folder, cell, reads, *shows, ends, name="canary")


def places_with_the_canary(folder: Path, *texts: str) -> list[str]:
    """Where the secret stands, in any file under a folder, databases and archives too, or in what a command printed."""
    found = [f"text {number}" for number, text in enumerate(texts) if _has(text.encode())]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(_has(content) for content in [path.name.encode(), *_contents(path)]):
            found.append(str(path.relative_to(folder)))
    return found


def _contents(path: Path) -> list[bytes]:
    """A file's bytes; of a database also each row, which may lie torn over pages; of what is packed, what is in it."""
    whole = path.read_bytes()
    found = [whole]
    if whole.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as rows:
            found.append("\n".join(rows.iterdump()).encode())
        rows.close()
    if zipfile.is_zipfile(io.BytesIO(whole)):
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            found += [archive.read(name) for name in archive.namelist()]
    if whole[:1] == b"\x78":
        found.append(zlib.decompressobj().decompress(whole))
    return found


def _has(content: bytes) -> bool:
    disguises = [
        CANARY,
        json.dumps(CANARY)[1:-1],
        json.dumps(CANARY, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(CANARY))[3:-3],
        repr(CANARY)[1:-1],
        html.escape(CANARY),
        html.escape(CANARY, quote=False),
        urllib.parse.quote(CANARY),
        urllib.parse.quote_plus(CANARY),
        base64.b64encode(CANARY.encode()).decode()[:16],
        base64.b64encode(f"user:{CANARY}".encode()).decode()[8:24],
        CANARY.encode().hex(),
        CANARY[:8],  # however the rest of it may be written
    ]
    return any(each.encode() in content for each in disguises)
