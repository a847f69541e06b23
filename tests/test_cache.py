"""The one cache, and its files of tensors: nothing is computed twice, nothing damaged is believed."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from contrastive import UserError
from contrastive.settings import RunError
from contrastive.storage.cache import Record, memo, memo_record
from contrastive.storage.files import DamagedError
from contrastive.storage.tensors import hash_tensors, read_tensors, write_tensors

KINDS = [
    torch.arange(6.0).view(2, 3),
    torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    torch.tensor([2**60, -1]),
    torch.tensor([True, False]),
    torch.tensor(7, dtype=torch.uint8),  # without a dimension
    torch.empty(0, 4),
    torch.tensor([float("nan"), float("inf")]),
    torch.arange(12.0).view(3, 4).T,  # not contiguous
]


# --- Files of tensors -------------------------------------------------------------------------------------------


def test_tensors_of_every_kind_come_back_as_they_were(tmp_path):
    tensors = {str(i): tensor for i, tensor in enumerate(KINDS)}
    metadata = {"text": "naïve\n", "list": [1, 0.1, None], "dict": {"a": {"b": True}}}
    write_tensors(tmp_path / "x", metadata, tensors)
    read, found = read_tensors(tmp_path / "x")
    assert read == metadata
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num())


def test_tied_weights_are_written_once_for_each_name(tmp_path):
    w = torch.arange(4.0)
    write_tensors(tmp_path / "x", {}, {"a": w, "b": w})
    assert all(torch.equal(tensor, w) for tensor in read_tensors(tmp_path / "x")[1].values())


def test_the_same_content_is_the_same_bytes(tmp_path):
    a, b = torch.ones(2), torch.zeros(3)
    write_tensors(tmp_path / "x", {"p": 1, "q": 2}, {"a": a, "b": b})
    write_tensors(tmp_path / "y", {"q": 2, "p": 1}, {"b": b, "a": a})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_change_of_any_byte_is_told(tmp_path):
    path = tmp_path / "x"
    write_tensors(path, {"epochs": 3}, {"w": torch.arange(20.0), "flag": torch.tensor([True, False])})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=str(path)):
            read_tensors(path)
    for content in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\0", b"\xff" * 100, pickle.dumps({"w": 1})):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=str(path)):
            read_tensors(path)
    path.write_bytes(whole)
    assert read_tensors(path)[0] == {"epochs": 3}


def test_what_was_not_written_here_is_not_read(tmp_path):
    for metadata in (None, {"other": "{}"}, {"contrastive": "[1]"}, {"contrastive": "{}"}):
        (tmp_path / "x").write_bytes(save({"w": torch.ones(2)}, metadata))
        with pytest.raises(DamagedError):
            read_tensors(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DamagedError):
        read_tensors(tmp_path / "folder")


def test_the_hash_of_tensors_tells_names_types_shapes_and_values_apart():
    w = torch.arange(6.0)
    different = [
        {"w": w}, {"v": w}, {"w": w.double()}, {"w": w.view(2, 3)}, {"w": w.view(3, 2)}, {"w": -w}, {},
        {"w": w, "v": w}, {"w": w.view(torch.int32)},
    ]  # fmt: skip
    assert len({hash_tensors(tensors) for tensors in different}) == len(different)
    assert hash_tensors({"a": w, "b": -w}) == hash_tensors({"b": -w, "a": w})
    square = torch.arange(9.0).view(3, 3)
    assert hash_tensors({"w": square.T}) == hash_tensors({"w": square.T.contiguous()}) != hash_tensors({"w": square})


# --- memo -------------------------------------------------------------------------------------------------------


class Count:
    """A computation that counts how often it is done."""

    def __init__(self, **value):
        self.value, self.times = value, 0

    def __call__(self):
        self.times += 1
        return self.value


def test_what_was_computed_is_not_computed_again(fresh_runs):
    compute = Count(accuracy=97.1, rows=[["linear", None, 100]], weights=torch.arange(3.0))
    for _ in range(3):
        found = memo_record("evaluation", {"run": "abc", "budgets": [100, 600]}, compute, "evaluating")
        assert found.keys() == compute.value.keys()
        assert (found["accuracy"], found["rows"]) == (97.1, [["linear", None, 100]])
        assert torch.equal(found["weights"], torch.arange(3.0))
    memo_record("evaluation", {"budgets": [100, 600], "run": "abc"}, compute, "evaluating")  # in another order
    assert compute.times == 1
    (kept,) = (path for path in (fresh_runs / "cache").iterdir() if path.suffix == ".safetensors")
    assert kept.name.startswith("evaluation-")


def test_all_that_decides_a_value_is_in_its_key(fresh_runs):
    keys = [("a", {}), ("b", {}), ("a", {"x": 1}), ("a", {"x": 2}), ("a", {"x": "1"}), ("a", {"x": None})]
    for i, (kind, decisive) in enumerate(keys):
        assert memo_record(kind, decisive, Count(n=i), "computing") == {"n": i}
    for i, (kind, decisive) in enumerate(keys):
        assert memo_record(kind, decisive, Count(n=-1), "computing") == {"n": i}


def test_a_value_of_another_key_in_the_same_place_is_not_taken(tmp_path):
    # As after a collision of digests, or when somebody renamed a file
    assert memo(tmp_path / "x", "first", Count(n=1), Record(), "computing") == {"n": 1}
    assert memo(tmp_path / "x", "second", Count(n=2), Record(), "computing") == {"n": 2}
    assert memo(tmp_path / "x", "second", Count(n=3), Record(), "computing") == {"n": 2}


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b.replace(b"97.5", b"99.5")])
def test_a_damaged_value_is_made_again_and_that_is_said(tmp_path, capsys, damage):
    path, compute = tmp_path / "x", Count(accuracy=97.5)
    memo(path, "key", compute, Record(), "computing")
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert memo(path, "key", compute, Record(), "computing") == {"accuracy": 97.5}
    assert compute.times == 2
    assert path.read_bytes() == whole
    assert f"NOTE: {path} is damaged" in capsys.readouterr().err
    memo(path, "key", compute, Record(), "computing")
    assert compute.times == 2


def test_a_computation_that_fails_keeps_nothing_and_locks_nothing(tmp_path):
    def fail():
        raise RunError("the loss is no longer finite")

    with pytest.raises(RunError, match="no longer finite"):
        memo(tmp_path / "x", "key", fail, Record(), "computing")
    assert not (tmp_path / "x").exists()
    assert memo(tmp_path / "x", "key", Count(n=1), Record(), "computing") == {"n": 1}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "file"))
    compute = Count(n=1)
    with pytest.raises(UserError, match=r"cannot write to .*file/cache: .* Set CONTRASTIVE_RUNS\.") as caught:
        memo_record("a", {}, compute, "computing")
    assert "\n" not in str(caught.value)
    assert compute.times == 0  # hours of work would be lost


TWICE = """
import os, sys, time
from pathlib import Path
from contrastive.storage.cache import memo_record

folder = Path(sys.argv[1])

def compute():
    (folder / f"{os.getpid()}.computed").touch()
    while len(list(folder.glob("*.ready"))) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # in which the other one, too, would begin
    return {"n": 5}

(folder / f"{os.getpid()}.ready").touch()
print(memo_record("a", {"x": 1}, compute, "computing"))
"""


def test_of_two_processes_one_computes_and_both_have_it(fresh_runs, tmp_path):
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["{'n': 5}\n"] * 2
    assert len(list(tmp_path.glob("*.computed"))) == 1


def test_a_codec_may_keep_a_value_in_any_way(tmp_path):
    class Folder:
        def read(self, path, key):
            return json.loads((path / f"{key}.json").read_text())

        def write(self, path, key, value):
            path.mkdir(exist_ok=True)
            (path / f"{key}.json").write_text(json.dumps(value))

    compute = Count(n=1)
    for _ in range(2):
        assert memo(tmp_path / "deep" / "er", "key", compute, Folder(), "computing") == {"n": 1}
    assert compute.times == 1
    assert Path(tmp_path / "deep" / "er" / "key.json").is_file()
