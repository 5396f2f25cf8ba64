"""The picture of the README, of a life told by ``prodkit lifecycle``: ``python tests/story_picture.py outputs``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from prodkit.canvas import Chart
from prodkit.charts import draw_daily

PICTURE = Path(__file__).parent.parent / "notebooks" / "story.png"


def story(out: Path) -> Chart:
    """The AUC of what was served in each month, with its interval, and what was decided at its end."""
    auc, marks = {}, {}
    code = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
    call = [sys.executable, "-c", code, "lifecycle", "--json", "--out", str(out)]
    periods = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)["periods"]
    rows = {row["window"]: row for row in periods}
    for path in sorted(out.glob("runs/monitor-*/result.json")):
        result = json.loads(path.read_text())
        window, day = result["params"]["window"], pd.Timestamp(result["params"]["window"].split("/")[0])
        served = next(each for each in result["evidence"] if each["name"] == "performance.score")
        auc[day] = {"AUC": served["value"], "low": served["low"], "high": served["high"]}
        row = rows[window[:7]]
        if row["decision"] not in ("keep", "watch"):
            drill = f" ({row['drill']})" if row["drill"] else ""
            marks[day] = f"{row['decision'].removesuffix(', then promote')}{drill}"
    title = "A year in production: AUC of what was served each month"
    return draw_daily(pd.DataFrame.from_dict(auc, orient="index"), unit="AUC", title=title, marks=marks)


if __name__ == "__main__":
    PICTURE.write_bytes(story(Path(sys.argv[1])).png)
    print(PICTURE, PICTURE.stat().st_size)
