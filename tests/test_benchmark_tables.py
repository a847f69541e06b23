"""What is said of the benchmark's numbers, in its page and in docs/, and the notebooks that it executes."""

import json
from pathlib import Path

import nbformat
from benchmarks.tables import goal_table, parts_table, speed_table
from docs.generate import BENCHMARKS, between, generated_parts

ROOT = Path(__file__).parents[1]


def test_ratios_are_of_medians():
    def value(median):
        return {"median": median}

    def loss(ms, memory):
        return {"milliseconds": value(ms), "extra_MiB": memory}

    def run(seconds, *accuracy):
        return {
            "seconds": {"mean": seconds},
            "accuracy": {"mean": sum(accuracy) / len(accuracy), "std": 0.1, "values": list(accuracy)},
        }

    ours = {"4": run(8.0, 98.5), "5": run(10.0, 98.7)}
    theirs = {"15": run(150.0, 98.0), "30": run(300.0, 98.5)}
    goal = {"goal": 98.6, "n_labels": 30000, "reached": {"ours": 5}, "runs": {"ours": ours, "lightly": theirs}}
    measured = {
        "throughput": {"ours": value(3000), "lightly": value(500)},
        "losses": {"256": {"ours": loss(2.0, 1.0), "plain matrix": loss(4.0, 8.0)}},
        "goal": goal,
        "parts": {
            "milliseconds": {"whole step": value(100.0), "encoder, head and optimiser": value(92.0)},
            "operations": {"stock": 23e9, "ours": 20e9},
            "matrix_product": {"per_second": value(400e9)},
        },
    }
    table = speed_table(measured)
    assert "| 3,000 | 500 | **6.0x** as many |" in table
    assert "| 10.0 | over 300 | over **30x** sooner |" in table
    assert "| 2 (1) | 4 (8) | **0.5** of the time |" in table
    goal["reached"]["lightly"] = 30  # crossed between the run of 15 epochs, which fell short, and this one
    theirs["15"], theirs["30"] = run(150.0, 98.0), run(300.0, 98.7)
    assert "| 10.0 | 300 | **15x to 30x** sooner |" in speed_table(measured)
    del goal["reached"]["lightly"]
    assert "| ours | 5 | 1 | **10.0** | **98.70 %** |" in goal_table(goal)
    assert "| the step less encoder, head and optimiser | 8.00 ms | 8.0 % |" in parts_table(measured)
    assert "| 250 GFLOP/s | 62 % of 400 |" in parts_table(measured)


def test_the_source_notebook_is_clean():
    notebook = nbformat.read(ROOT / "benchmarks" / "benchmarks.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in code].count(["parameters"]) == 1
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 12
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_measured_notebook_imports_where_it_is_timed():
    notebook = nbformat.read(ROOT / "notebooks" / "01_pretrain.ipynb", as_version=4)
    # The first three are timed, when a cell of this run's parameters has been put after the first.
    first = [cell.source for cell in notebook.cells if cell.cell_type == "code"][:2]
    assert any("import torch" in source and "contrastive.report" in source for source in first)


def test_documents_are_generated_from_the_published_measurements():
    published = json.loads(BENCHMARKS.read_text())
    text = (ROOT / "docs" / "performance.md").read_text()
    assert between(text, "speed") == generated_parts()["docs/performance.md", "speed"].strip()
    assert published["scope"] == "full"
    assert published["dataset"]["name"] == "mnist"
    assert published["dirty"] is False
