"""What a step of each method takes, beside SimCLR's."""

import json

import pytest
from benchmarks import steps

from contrastive.settings import METHODS


def test_every_method_has_a_row_and_simclr_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(steps, "ROUNDS", 1)
    assert steps.main(["--encoder", "cnn", "--batch", "8", "--out", str(tmp_path / "steps.json")]) == 0
    measured = json.loads((tmp_path / "steps.json").read_text())
    rows = {row["method"]: row for row in measured["methods"]}
    assert {name.partition(",")[0] for name in rows} == set(METHODS)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    first = rows["simclr"]
    assert [first[name] for name in ("time", "explained_time", "memory", "explained_memory")] == [1, 1, 1, 1]
    # Passes without a gradient take time, and nothing is kept of them
    assert rows["byol"]["explained_time"] > 1.2
    assert rows["byol"]["explained_memory"] == 1
    assert rows["supervised"]["explained_memory"] == pytest.approx(0.5)
    assert rows["dino"]["explained_time"] > rows["dino, 2 views"]["explained_time"]
