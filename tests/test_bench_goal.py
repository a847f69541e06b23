"""The shortest runs that reach an accuracy, and how sure the ratio of two libraries' times is."""

import numpy as np
import pytest
from benchmarks import goal
from benchmarks.goal import ratio_to_goal, resampled_seconds, seconds_to_goal, shortest, summary
from benchmarks.tables import goal_conditions, goal_table


def search(crossing, most=64):
    """What `shortest` finds of runs that reach 90 % from `crossing` epochs on, and the lengths that it asked for."""
    asked = []

    def measure(epochs):
        asked.append(epochs)
        return summary([2.0 * epochs], [95.0 if epochs >= crossing else 85.0])

    runs, found = shortest(measure, 90.0, most)
    assert len(set(asked)) == len(asked)  # each costs minutes
    assert [int(epochs) for epochs in runs] == sorted(asked)
    return found, runs


@pytest.mark.parametrize("most", [1, 40, 64])
def test_the_shortest_is_found_wherever_it_is(most):
    for crossing in range(1, most + 1):
        found, runs = search(crossing, most)
        assert found == crossing
        assert crossing == 1 or str(crossing - 1) in runs  # which fell short
        assert crossing == most or max(map(int, runs)) > crossing  # where chance may have it
        assert len(runs) <= 13
        assert seconds_to_goal(runs, found) == 2.0 * crossing
    found, runs = search(most + 1, most)
    assert found is None
    assert max(map(int, runs)) == most
    assert seconds_to_goal(runs, None) == 2.0 * most


def test_resampling_moves_seconds_and_the_length_that_reaches_the_goal():
    # Two seeds, so drawn anew: twice the first (1/4), one of each (1/2), twice the second (1/4).
    runs = {
        "1": summary([1.0, 3.0], [91.0, 88.0]),  # means 91, 89.5, 88
        "2": summary([10.0, 30.0], [91.0, 89.0]),  # means 91, 90, 89
        "10": summary([100.0, 300.0], [92.0, 91.0]),  # means 92, 91.5, 91
    }
    seconds, missed = resampled_seconds(runs, 90.0, np.random.default_rng(1))
    shares = {value: float((seconds == value).mean()) for value in np.unique(seconds)}
    assert set(shares) == {1.0, 20.0, 300.0}
    assert shares[20.0] == pytest.approx(0.5, abs=0.03)
    assert shares[1.0] == pytest.approx(0.25, abs=0.03)
    assert missed == 0
    del runs["10"]  # then no length serves when the second seed is drawn twice: the longest counts
    seconds, missed = resampled_seconds(runs, 90.0, np.random.default_rng(1))
    assert set(np.unique(seconds)) == {1.0, 20.0, 30.0}
    assert missed == float((seconds == 30.0).mean()) == pytest.approx(0.25, abs=0.03)


def test_a_ratio_has_the_interval_of_its_percentiles(monkeypatch):
    ours = {"1": summary([2.0, 2.0], [99.0, 99.0])}
    theirs = {"3": summary([20.0, 20.0], [80.0, 80.0]), "4": summary([40.0, 60.0], [95.0, 95.0])}
    found = ratio_to_goal(ours, theirs, (1, 4), 90.0)
    assert found == {"ratio": 25.0, "low": 20.0, "high": 30.0, "beyond": 0.0}
    monkeypatch.setattr(goal, "RESAMPLES", 3)
    assert len(resampled_seconds(ours, 90.0, np.random.default_rng(0))[0]) == 3


def test_the_search_is_told_in_words_and_a_table():
    found, runs = search(3)
    told = {
        "goal": 90.0, "n_labels": 100, "most_epochs": 64, "runs": {"ours": runs}, "reached": {"ours": found},
        "settings": {"batch_size": 8, "lr": 0.1, "augment": "simclr"}, "ratios": {},
    }  # fmt: skip
    assert "| ours | 3 | 1 | **6.0** | **95.00 %** |" in goal_table(told)
    assert "takes it that accuracy grows with length" in goal_conditions(told)
    assert "interval" not in goal_conditions(told)
    told["ratios"] = {"lightly": {"ratio": 2.0, "low": 1.0, "high": 3.0, "beyond": 0.012}}
    assert "In 1.2 % of the draws none does" in goal_conditions(told)
