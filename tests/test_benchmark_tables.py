"""What is said of the benchmark's numbers, in its page and in docs/, and the notebooks that it executes."""

import json
from pathlib import Path

import nbformat
from benchmarks.gpu_tables import gpu_section
from benchmarks.tables import answer, augmentation_table, goal_table, parts_table, report_table, speed_table
from docs.generate import BENCHMARKS, between, generated_parts

ROOT = Path(__file__).parents[1]


def value(median):
    return {"median": median}


def loss(ms, memory):
    return {"milliseconds": value(ms), "extra_MiB": memory}


def run(seconds, *accuracy):
    return {
        "seconds": {"mean": seconds},
        "accuracy": {"mean": sum(accuracy) / len(accuracy), "std": 0.1, "values": list(accuracy)},
    }


def measured():
    """Numbers of a benchmark in which lightly did not reach the goal."""
    ours = {"4": run(8.0, 98.5), "5": run(10.0, 98.7)}
    theirs = {"15": run(150.0, 98.0), "30": run(300.0, 98.5)}
    views = {"ours": (9000, 1.25), "torchvision": (1500, 1.0)}
    arms = {name: {"views_per_second": value(rate), "extra_memory": extra} for name, (rate, extra) in views.items()}
    return {
        "throughput": {"ours": value(3000), "ours, float32": value(1500), "lightly": value(500)},
        "resnet18": {"batch_size": 64, "arms": {"ours": value(60), "lightly": value(40)}},
        "augmentation": {"224": {"images": 32, "arms": arms}},
        "losses": {"256": {"ours": loss(2.0, 1.0), "plain matrix": loss(4.0, 8.0)}},
        "goal": {
            "goal": 98.6, "n_labels": 30000, "reached": {"ours": 5}, "runs": {"ours": ours, "lightly": theirs},
            "ratios": {},
        },
        "parts": {
            "milliseconds": {"whole step": value(100.0), "encoder, head and optimiser": value(92.0)},
            "operations": {"stock": 23e9, "ours": 20e9},
            "matrix_product": {"per_second": value(400e9)},
        },
    }  # fmt: skip


def test_ratios_are_of_medians():
    numbers = measured()
    table = speed_table(numbers)
    assert "| images/s | lightly | 3,000 | 500 | **6.0x** as many |" in table
    assert "| images/s, ResNet-18 | lightly | 60 | 40 | **1.5x** as many |" in table
    assert "| 10.0 | over 300 | over **30x** sooner |" in table
    assert "| views/s, 224 pixels | torchvision | 9,000 (1.2) | 1,500 (1.0) | **6x** as many |" in table
    assert "| 2 (1) | 4 (8) | **0.5** of the time |" in table
    assert answer(numbers) == (
        "Pretraining here takes 3,000 images/s, 6.0 times as many as the fastest of the others (lightly); in float32, "
        "which the others use by default, 3.0 times as many."
    )
    goal = numbers["goal"]
    goal["reached"]["lightly"], goal["runs"]["lightly"]["30"] = 30, run(300.0, 98.7)
    goal["ratios"]["lightly"] = {"ratio": 30.4, "low": 23.6, "high": 40.2, "beyond": 0.0}
    assert "| 10.0 | 300 | **30x (24x to 40x)** sooner |" in speed_table(numbers)
    assert answer(numbers).endswith("A probe gets to 98.60 % 30x (24x to 40x) sooner than lightly.")


def test_each_table_shows_its_part():
    numbers = measured()
    assert "| ours | 5 | 1 | **10.0** | **98.70 %** |" in goal_table(numbers["goal"])
    assert "| the step less encoder, head and optimiser | 8.00 ms | 8.0 % |" in parts_table(numbers)
    assert "| 250 GFLOP/s | 62 % of 400 |" in parts_table(numbers)
    assert "| 224 | 32 | torchvision | 1,500 | 1.0 |" in augmentation_table(numbers["augmentation"])
    reports = {"contrastive report --preset quick": {"seconds": 61.4, "MiB": 1234.5}}
    assert "| `contrastive report --preset quick` | 61 s | 1,234 MiB |" in report_table(reports)


def test_a_gpu_is_told_of_where_there_are_numbers():
    def row(what, value, unit, note=""):
        return {"what": what, "value": value, "unit": unit, "note": note}

    rows = [row("fast", 1234.5, "images/s"), row("small", 0.1234, "ms", "as it is"), row("large", None, "ms")]
    numbers = {
        "gpu": "Any GPU", "cores": 16, "torch": "2.15", "commit": "abc", "precision": "bfloat16", "grey": "MNIST",
        "colour": "made up", "n_images": 5000, "batch_size": 256, "missing": ["lightly"],
        "parts": {"losses": [*rows, row("bits", "equal", "")]}, "left_out": {"peers": "there was no time for it"},
    }  # fmt: skip
    said = gpu_section(numbers)
    for text in (
        "Any GPU, 16 cores; PyTorch 2.15; commit abc",
        "left out: lightly.",
        "Left out: peers (there was no time for it).",
        "| fast | 1,234 images/s |  |",
        "| small | 0.123 ms | as it is |",
        "| large | does not fit into the memory |  |",
        "| bits | equal |  |",
    ):
        assert text in said
    assert gpu_section(None).startswith("Not measured.")


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
