"""Execute the notebooks with their defaults and keep the outputs, which nbval then compares: run after a change.

python tests/refresh_notebooks.py [NAME ...]
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"
FOLDER = Path(__file__).parent.parent / "notebooks"


def refresh(path: Path) -> None:
    """Run one notebook in its folder, as nbval does, and write it back without times or widget state."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    notebook.metadata.pop("widgets", None)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop(WIDGET, None)  # without a kernel there is only the still picture
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as outputs:
        os.environ["PRODKIT_OUT"] = outputs
        for path in sorted(FOLDER.glob("*.ipynb")):
            if not sys.argv[1:] or path.stem in sys.argv[1:]:
                print(path.name)
                refresh(path)
