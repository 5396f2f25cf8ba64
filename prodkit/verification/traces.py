"""What an execution leaves in a text that says nothing about its result: addresses, timings, progress bars."""

from __future__ import annotations

import re

__all__ = ["settled_text"]

# A bar of tqdm: its name, how far it is, the times in brackets with what its owner adds, the rest.
_BAR = re.compile(
    r"^(?P<name>.*?)\s*(?:\d+%\|[^|]*\||(?=\d+\w+ \[\d))\s*(?P<count>\S+)"
    r" \[\d[\d:]*(?:<[\d:?]+)?, +[^\],]*(?P<added>[^\]]*)\](?P<rest>.*)$"
)
_SETTLED = [
    (re.compile(r"\bat 0x[0-9a-fA-F]+"), "at 0x"),
    (re.compile(r"\bipykernel_\d+/"), "ipykernel/"),
    (re.compile(r"\b(T_)[0-9a-f]{5}(?=[_\"' ])"), r"\1"),  # ids of a pandas Styler
    (re.compile(r"\b(sk-(?:container|estimator)-id)-[\w-]+"), r"\1"),
    (re.compile(r"^(CPU times|Wall time): .*$", re.M), r"\1"),  # %time
    (re.compile(r"^.* per loop \(mean ± std\. dev\. of .*$", re.M), "per loop"),  # %timeit
]


def settled_text(text: str) -> str:
    r"""The text without addresses of objects and timings, and with the last state of each progress bar only.

    >>> settled_text("<A at 0x7f12>\r 50%|# | 1/2 [00:01<00:01, 1.0s/it]\r100%|##| 2/2 [00:02<00:00, 1.1s/it]\n")
    '<A at 0x>\n2/2'
    """
    for pattern, instead in _SETTLED:
        text = pattern.sub(instead, text)
    bars: dict[str, str] = {}
    lines: list[str] = []
    for line in re.split(r"[\r\n]", text.replace("\x1b[A", "")):
        if bar := _BAR.match(line):
            name = bar["name"].strip()
            bars[name] = f"{name} {bar['count']}{bar['added']}{bar['rest']}".strip()
        else:
            lines.append(line)
    return "\n".join([*(line for line in lines if line.strip()), *bars.values()]) if bars else text
