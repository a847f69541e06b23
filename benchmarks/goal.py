"""How soon an arm reaches an accuracy: the shortest runs that do, and how sure the ratio of two arms' times is.

A run of each length has its own schedule of learning rates. Accuracy is taken to grow with length, so that lengths
between one that falls short and one that gets there can be halved.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

RESAMPLES = 10_000
Runs = Mapping[str, Any]  # epochs -> seconds and accuracy of its runs: mean, and values by seed


def summary(seconds: list[float], accuracy: list[float]) -> dict[str, Any]:
    """What is kept of runs of one length, a value for each seed."""
    return {
        "seconds": {"mean": statistics.fmean(seconds), "values": seconds},
        "accuracy": {
            "mean": statistics.fmean(accuracy),
            "std": statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0,
            "values": accuracy,
        },
    }


def shortest(measure: Callable[[int], Mapping[str, Any]], goal: float, most: int) -> tuple[dict[str, Any], int | None]:
    """Find the shortest runs whose mean accuracy reaches the goal: 1 epoch, doubled until they do, then by halves.

    One length beyond that is measured as well, so that the goal can also be reached where chance has it a little later.

    Args:
        measure: runs of that many epochs -> as `summary` gives it.
        goal: accuracy in percent.
        most: epochs of the longest runs.

    Returns:
        Epochs (as text, from few to many) -> what was measured; and the shortest that reach the goal, None if none do.
    """
    runs: dict[int, Mapping[str, Any]] = {}

    def reaches(epochs: int) -> bool:
        runs[epochs] = measure(epochs)
        return runs[epochs]["accuracy"]["mean"] >= goal

    short, found = 0, 1
    while not reaches(found):
        short, found = found, min(2 * found, most)
        if short == most:
            return {str(epochs): runs[epochs] for epochs in sorted(runs)}, None
    while found - short > 1:
        middle = (short + found) // 2
        short, found = (short, middle) if reaches(middle) else (middle, found)
    if max(runs) == found < most:
        runs[found + 1] = measure(found + 1)
    return {str(epochs): runs[epochs] for epochs in sorted(runs)}, found


def seconds_to_goal(runs: Runs, reached: int | None) -> float:
    """Mean seconds of an arm's shortest runs that reach the goal; of its longest ones where none does."""
    return float(runs[str(reached or max(map(int, runs)))]["seconds"]["mean"])


def resampled_seconds(runs: Runs, goal: float, draws: np.random.Generator) -> tuple[np.ndarray, float]:
    """Seconds to the goal with seeds drawn anew, with replacement.

    For each draw the mean accuracy of every length is taken over the drawn seeds, and with it the shortest length that
    reaches the goal. Where none does, the longest one counts.

    Returns: seconds, one for each of RESAMPLES draws; and the share of draws in which no length reached the goal.
    """
    lengths = sorted(runs, key=int)
    accuracy, seconds = (
        np.array([runs[epochs][what]["values"] for epochs in lengths]) for what in ("accuracy", "seconds")
    )  # lengths x seeds
    n_seeds = accuracy.shape[1]
    seeds = draws.integers(n_seeds, size=(RESAMPLES, n_seeds))
    # A mean that equals the goal reaches it, also where its last bit is rounded down
    reach = accuracy[:, seeds].mean(2) >= goal - 1e-9  # lengths x draws
    first = np.where(reach.any(0), reach.argmax(0), len(lengths) - 1)
    return seconds[:, seeds].mean(2)[first, np.arange(RESAMPLES)], float(1 - reach.any(0).mean())


def ratio_to_goal(ours: Runs, theirs: Runs, reached: tuple[int, int], goal: float) -> dict[str, float]:
    """How many times as long the other arm takes to the goal, with a 95 % interval: percentiles over draws of both
    arms' seeds, which move the seconds and the lengths that reach the goal.

    reached: the lengths that do, ours and theirs. Returns also `beyond`, the largest share of draws, of either arm, in
    which no measured length reached the goal.
    """
    draws = np.random.default_rng(0)
    (here, missed), (there, lost) = (resampled_seconds(runs, goal, draws) for runs in (ours, theirs))
    low, high = np.percentile(there / here, (2.5, 97.5))
    ratio = seconds_to_goal(theirs, reached[1]) / seconds_to_goal(ours, reached[0])
    return {"ratio": ratio, "low": float(low), "high": float(high), "beyond": max(missed, lost)}
