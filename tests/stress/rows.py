"""The rows of the table: each tries in its own way to make the library lose something or be silently wrong."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tqdm import tqdm

from contrastive import Settings, UserError, load_images, pretrain
from contrastive.__main__ import complain
from contrastive.evaluation import evaluate
from contrastive.report.index import write_index
from contrastive.storage.files import read_json, read_lines, write_json
from contrastive.storage.tensors import hash_tensors, read_tensors
from contrastive.training import checkpoint, load_method, loop
from contrastive.training.checkpoint import PREVIOUS
from contrastive.training.state import LoopState

# Small, so that most of a case is what is tested: half a second of training, checkpoints between all steps.
TINY = Settings(
    preset="smoke", epochs=6, base_channels=2, batch_size=64, projection_dim=8, budgets=(50,), supervised_steps=1,
    checkpoint_seconds=0, general="none",
)  # fmt: skip
# What is killed, in turn
KILLED = [
    TINY,
    TINY.replace(method="byol", hidden_dim=16, projection_dim=8, optimiser="sgd", lr=0.1),
    TINY.replace(method="mocov2", queue_size=128, projection_dim=8, second_augment="crop"),
    TINY.replace(method="supervised", optimiser="adamw"),
    TINY.replace(encoder="resnet18", stem="imagenet", n_images=128, epochs=2),
]
# What takes seconds to import is imported once, and each case is still a process of its own.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.stress.rows", "torch._dynamo", "sklearn.datasets", "sklearn.model_selection"])


class Row:
    """What a row of the table counts: cases, what went wrong in which, and how many hit what they aimed at."""

    def __init__(self) -> None:
        self.cases, self.problems, self.remark, self.hits = 0, list[str](), "", 0

    def case(self, problem: str) -> None:
        """Count a case, with what went wrong or an empty string."""
        self.cases += 1
        self.problems += [problem] if problem else []


def work(runs: Path, settings: Settings, said: Path, begun: Path | None = None) -> None:
    """Train and evaluate a run, in a process of its own. said: where standard error goes. begun: gets a line for each
    training that really starts, those of networks on labels included."""
    os.environ["CONTRASTIVE_RUNS"] = str(runs)
    sys.stderr = said.open("w")
    tqdm.set_lock(threading.RLock())  # its own would be left behind by a killed process
    begin = loop.begin_epoch

    def logged(training: loop.Training, epoch: int, state: LoopState | None = None) -> LoopState:
        if begun is not None and epoch == 0:
            with begun.open("a") as file:
                file.write(f"{training.settings.run_name}\n")
        return begin(training, epoch, state)

    loop.begin_epoch = logged
    try:
        evaluate(pretrain(settings, progress=False), load_images(settings.data.dataset), progress=False)
    except UserError as error:
        sys.exit(complain(str(error)))


def start(runs: Path, settings: Settings = TINY, said: Path = Path(os.devnull), begun: Path | None = None) -> Any:
    """`work`, started."""
    process = context.Process(target=work, args=(runs, settings, said, begun))
    process.start()
    return process


def outcome(runs: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: the encoder, the history and all that is cached, without the times."""
    (settings,) = runs.glob("*/settings.json")
    folder = settings.parent
    lines = read_lines(folder / "history.jsonl", len((folder / "history.jsonl").read_bytes().splitlines()))
    encoder, weights = read_tensors(folder / "encoder.safetensors")
    del encoder["settings"]  # such as how often checkpoints were written
    found = {
        "encoder": (encoder, hash_tensors(weights)),
        "history": [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in lines],
    }
    for path in (runs / "cache").glob("*.safetensors"):
        metadata, tensors = read_tensors(path)
        for times in ("seconds", "costs"):
            metadata["values"].pop(times, None)
        found[path.name] = metadata, hash_tensors(tensors)
    return found


def finish(runs: Path, settings: Settings = TINY) -> dict[str, Any]:
    """Run to the end. Returns the outcome, or what prevented one."""
    start(runs, settings).join()
    try:
        return outcome(runs)
    except (UserError, OSError, ValueError) as error:
        return {"problem": error}


def reference(folder: Path, settings: Settings = TINY, begun: Path | None = None) -> tuple[dict[str, Any], float]:
    """The outcome of a run in `folder/whole` that nobody interrupts, and the seconds that it takes."""
    warm_up = context.Process(target=int)  # the server's imports are not to be timed
    warm_up.start()
    warm_up.join()
    started = time.monotonic()
    start(folder / "whole", settings, begun=begun).join()
    return outcome(folder / "whole"), time.monotonic() - started


# --- The rows -------------------------------------------------------------------------------------------------------


def kills(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """Kill at one to three random moments, run to the end, compare bit for bit."""
    in_time = 0
    expected = [reference(folder / f"kind{k}", settings) for k, settings in enumerate(KILLED[:count])]
    for i in range(count):
        runs, kind = folder / f"kill{i}", i % len(KILLED)
        whole, seconds = expected[kind]
        settings = KILLED[kind].replace(checkpoint_seconds=dice.choice([0, 0, 0.1]))
        for _ in range(dice.randint(1, 3)):
            process = start(runs, settings)
            process.join(dice.uniform(0, seconds))
            in_time += process.is_alive()
            process.kill()
            process.join()
        problem = "" if finish(runs, settings) == whole else f"other bits: {settings.run_name}"
        found = (*runs.glob("*/.*"), *runs.glob(f"*/{PREVIOUS}"))
        leftovers = [path.name for path in found if path.suffix != ".lock"]
        row.case(problem or (f"left {leftovers}" if leftovers else ""))
        shutil.rmtree(runs)
    row.hits, row.remark = in_time, f"{in_time} kills before the end"


def damage(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """Flip or cut random bytes of a file; whatever then reads it notices, or has the same numbers."""
    expected, _ = reference(folder)
    runs, reports = folder / "whole", folder / "reports"
    (run_folder,) = (path.parent for path in runs.glob("*/settings.json"))
    page_of = reports / "r" / "results.json"
    report = {"status": "ok", "settings": TINY.as_json(), "notebooks": [], "seconds": {"total": 1.0}}
    page_of.parent.mkdir(parents=True)
    write_json(page_of, report)
    cache = sorted((runs / "cache").glob("*.safetensors"))
    kept = {path: path.read_bytes() for path in (page_of, *cache, *sorted(run_folder.iterdir()))}
    os.environ["CONTRASTIVE_RUNS"] = str(runs)
    run, images = pretrain(TINY, progress=False), load_images(TINY.data.dataset)
    method = load_method(run).state_dict()
    noticed = 0
    for _ in range(count):
        path = dice.choice(list(kept))
        content = bytearray(kept[path])
        if dice.random() < 0.3:
            content = content[: dice.randrange(len(content))]
        else:
            for _ in range(dice.randint(1, 4)):
                content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        if path.name.startswith("supervised"):  # which nothing else reads, once all is evaluated
            (evaluated,) = (other for other in cache if other.name.startswith("evaluation"))
            evaluated.unlink()
        said = io.StringIO()
        problem = ""
        try:
            with contextlib.redirect_stderr(said):
                if path == page_of:
                    page = write_index(reports).read_text()
                    problem = "" if 'class="damaged"' in page or read_json(path) == report else "a wrong entry"
                elif path.name == "state.pt":
                    same = all(torch.equal(v, method[k]) for k, v in load_method(run).state_dict().items())
                    problem = "" if same else "other weights"
                else:
                    evaluate(pretrain(TINY, progress=False), images, progress=False)
                    problem = "" if outcome(runs) == expected else "other numbers"
        except UserError as error:
            said.write(str(error))
            problem = "" if path.name in str(error) and "\n" not in str(error) else f"said {error}"
        except Exception as error:
            problem = f"{path.name}: {type(error).__name__}: {error}"
        noticed += bool(said.getvalue()) or path == page_of
        row.case(problem)
        for other, bytes_ in kept.items():
            other.write_bytes(bytes_)
    row.remark = f"{noticed} told, the others harmless"


def fuzz(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """Settings, parameter strings, IDX, npz and image files that hypothesis makes up."""
    from . import fuzzing

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for test in fuzzing.TESTS:
        done = [0]
        try:
            fuzzing.run(test, max(count // len(fuzzing.TESTS), 1), dice.randrange(2**31), folder, done)
        except Exception as error:  # the smallest case that hypothesis finds
            row.problems.append(f"{test.__name__}: {type(error).__name__}: {error}")
        row.cases += done[0]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    row.remark = f"memory grew by {grown:,.0f} MB"
    if grown > 1000:
        row.problems.append(row.remark)


def report(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command line, run."""
    command = [sys.executable, "-m", "contrastive", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def several_at_once(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """Two, then eight processes on one run, and on one index."""
    once = folder / "once"
    expected, _ = reference(folder, begun=once)
    for i in range(count):
        for n in (2, 8):
            runs, begun = folder / f"shared{i}-{n}", folder / f"begun{i}-{n}"
            processes = [start(runs, begun=begun) for _ in range(n)]
            for process in processes:
                process.join()
            codes = [process.exitcode for process in processes]
            same = outcome(runs) == expected and begun.read_text() == once.read_text()
            row.case("" if codes == [0] * n and same else f"{codes} {begun.read_text()}")
            root = folder / f"reports{i}-{n}"
            writers = [context.Process(target=write_report, args=(root, k)) for k in range(n)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            page = (root / "index.html").read_text()
            lost = [k for k in range(n * REPORTS) if f">report-{k}<" not in page]
            row.case(f"lost {lost}" if lost else "")


REPORTS = 5


def write_report(root: Path, number: int) -> None:
    """Some reports and after each the index, as the runner writes them, in a process of its own."""
    for k in range(number * REPORTS, (number + 1) * REPORTS):
        (root / f"report-{k}").mkdir(parents=True)
        results = {"status": "ok", "settings": TINY.as_json(), "notebooks": [], "seconds": {"total": 1.0}}
        write_json(root / f"report-{k}" / "results.json", results)
        write_index(root)


def checkpoints(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """The share of training that checkpoints take, for the encoder and the interval of the presets."""
    os.environ["CONTRASTIVE_RUNS"] = str(folder)
    seconds = [0.0]
    save = checkpoint.save_state

    def timed(*arguments: Any) -> None:
        started = time.perf_counter()
        save(*arguments)
        seconds.append(time.perf_counter() - started)

    settings = Settings(dataset="sklearn_digits", batch_size=128, n_images=1024, epochs=20 * count)
    with mock.patch.object(checkpoint, "save_state", timed):
        run = pretrain(settings, progress=False)
    share = sum(seconds) / (run.seconds + sum(seconds))
    row.case("" if share < 0.01 else f"{100 * share:.2f} %")
    row.remark = f"{100 * share:.3f} % of {run.seconds:.0f} s, {len(seconds) - 1} checkpoints"
