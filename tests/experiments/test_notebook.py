"""The notebook of the first ten lines runs in Jupyter, and shows what it promises.

tests/test_api.py runs its cells in the process of the test.
"""

import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "experiments" / "notebook.ipynb"


@pytest.mark.full
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for cell in notebook.cells:  # a small size
        cell["source"] = cell["source"].replace("epochs=20", "epochs=2")
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [cell["outputs"] for cell in cells]
    kinds = [{kind for output in each for kind in output.get("data", {})} for each in outputs]
    assert "image/png" in kinds[1] and "image/png" in kinds[3]
    figures = next(output["data"]["text/plain"] for output in outputs[2] if "data" in output)
    assert "1 label" in figures and "5 labels" in figures
    assert "<iframe" in "".join(outputs[4][0]["data"]["text/html"])
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
