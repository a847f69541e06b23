"""What is said of a grid: verdicts on its claims, noise, a notebook's section."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from contrastive.report import grid_section
from contrastive.sweeps.grids import Claim, Grid, grid_points
from contrastive.sweeps.verdicts import (
    GridResult,
    bar_length,
    compare_points,
    finding,
    least_difference,
    summary_sentence,
    untrained_sentence,
    verdict,
)

from .conftest import TINY_RUN


def result_of(values, n_validation=10**9):
    grid = Grid(name="g", title="t", base=TINY_RUN, vary={"temperature": [float(t) for t in values]}, seeds=1)
    points = grid_points(grid)
    return GridResult(
        grid, points, n_validation,
        {"h": {name: dict(enumerate(v)) for name, v in zip(points, values.values(), strict=True)}},
    )  # fmt: skip


CLAIM = Claim(say="Two is better", better={"temperature": 2.0}, worse={"temperature": 1.0})


def test_two_points_differ_by_more_than_noise_just_when_their_verdict_says_so():
    rng = np.random.default_rng(0)
    words = set()
    for shift in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6):
        result = result_of({1: list(rng.normal(90, 0.1, 5)), 2: list(rng.normal(90 + shift, 0.1, 5))})
        found = verdict(result, CLAIM)
        assert (abs(found.points) > least_difference(result)) == (found.word != "undecided")
        words.add(found.word)
    assert words == {"confirmed", "undecided"}


def test_verdicts_are_paired_tests():
    one, two = [90.0, 91.0, 89.5], [90.6, 91.9, 90.1]
    found = verdict(result_of({1: one, 2: two}), CLAIM)
    log_odds = [np.log(x / (100 - x)) for x in map(np.array, (two, one))]
    test = scipy_stats.ttest_rel(*log_odds)
    low, high = test.confidence_interval(0.95)
    # Of two points the pooled noise is that of their differences, from log-odds back to points at either's mean
    slopes = np.array([np.mean(x) * (100 - np.mean(x)) / 100 for x in (two, one)])
    assert found.points == pytest.approx(0.7)
    assert found.interval == pytest.approx((high - low) / 2 * np.sqrt((slopes**2).mean()))
    assert found.p == pytest.approx(test.pvalue, rel=0.1)
    assert found.word == "confirmed"
    assert verdict(result_of({1: two, 2: one}), CLAIM).word == "refuted"
    assert verdict(result_of({1: one, 2: [90.6, 90.9, 90.1]}), CLAIM).word == "undecided"
    assert "so it is here (+0.70 ± " in finding(result_of({1: one, 2: two}), CLAIM)


def test_the_noise_is_that_of_the_whole_grid():
    values = {1: [90.0, 91.0, 89.5], 2: [90.6, 91.9, 90.1], 3: [88.0, 89.3, 87.2], 4: [91.0, 91.8, 90.8]}
    result = result_of(values)
    # Two-way analysis of variance without interaction, its design written out and solved by least squares.
    percent = np.array([v for row in values.values() for v in row])
    y = np.log(percent / (100 - percent))
    points, seeds = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    design = np.column_stack([points[:, None] == np.arange(4), seeds[:, None] == np.arange(1, 3)]).astype(float)
    _, residual, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    slopes = [np.mean(values[t]) * (100 - np.mean(values[t])) / 100 for t in (1, 2)]
    error = (residual[0] / (len(y) - rank) * (slopes[0] ** 2 + slopes[1] ** 2) / 3) ** 0.5
    found = verdict(result, CLAIM)
    assert found.interval == pytest.approx(scipy_stats.t.ppf(0.975, len(y) - rank) * error)
    assert found.points == pytest.approx(0.7)


def test_intervals_cover_where_points_err_much_and_little():
    # One noise of log-odds for all: in points it is six times as much at 70 % as at 97 %
    rng, trials = np.random.default_rng(0), 400
    level = np.log(np.array([0.70, 0.84, 0.94, 0.97]) / np.array([0.30, 0.16, 0.06, 0.03]))
    inside = {(1, 2): 0, (3, 4): 0}
    result = result_of({t: [50.0, 50.0, 50.0] for t in range(1, 5)})
    for _ in range(trials):
        x = level[:, None] + rng.normal(0, 0.05, 3) + rng.normal(0, 0.08, (4, 3))
        rows = 100 / (1 + np.exp(-x))
        result.values = {"h": {f"temperature {t}": dict(enumerate(row)) for t, row in enumerate(rows, 1)}}
        for low, high in inside:
            rows = [result.values["h"][f"temperature {t}"] for t in (high, low)]
            found = compare_points(result, rows[:1], rows[1:])
            truth = 100 / (1 + np.exp(-level[high - 1])) - 100 / (1 + np.exp(-level[low - 1]))
            inside[low, high] += abs(found.points - truth) <= found.interval
    assert all(0.92 <= n / trials <= 0.98 for n in inside.values()), inside


def test_bars_are_as_long_as_their_point_varies():
    result = result_of({1: [70.0, 72.0, 71.0], 2: [96.0, 96.6, 96.2], 3: [96.1, 96.5, 96.4]})
    rows = list(result.values["h"].values())
    low, high, other = (bar_length(result, row) for row in rows)
    assert low > 4 * high
    assert (high + other) / 2 == pytest.approx(compare_points(result, [rows[1]], [rows[2]]).interval, rel=1e-3)
    assert math.isnan(bar_length(result_of({1: [50.0], 2: [92.0]}), {0: 50.0}))


def test_what_is_left_when_all_tries_are_counted():
    rng = np.random.default_rng(2)
    result = result_of({t: rng.normal(90 + (t > 6) * (t - 6) / 8, 0.25, 4) for t in range(1, 12)})
    claims = [
        Claim(say=f"{t}", better={"temperature": float(t)}, worse={"temperature": 1.0}, own=t % 2 == 0)
        for t in range(2, 12)
    ]
    result.grid = result.grid.model_copy(update={"claims": tuple(claims), "paper": "Something."})
    found = [verdict(result, claim) for claim in claims]
    ranks = scipy_stats.rankdata([v.p for v in found])
    # Benjamini and Hochberg 1995: all up to the largest rank whose p is small enough
    last = max((rank for rank, v in zip(ranks, found, strict=True) if v.p <= 0.05 * rank / len(found)), default=0)
    expected = ["" if v.word == "undecided" else "still" if rank <= last else "no longer"
                for rank, v in zip(ranks, found, strict=True)]  # fmt: skip
    rows = [
        [cell.strip() for cell in row.split("|")] for row in grid_section.findings_table({"g": result}).splitlines()
    ]
    assert [row[6] for row in rows[2:]] == expected
    assert {"still", "no longer", ""} == set(expected)
    assert [row[2] for row in rows[2:]] == ["ours", "paper"] * 5
    answer, numbers, _ = grid_section.grid_answer({"g": result})
    assert answer.startswith("Of 5 findings of the paper, ")
    assert "; of 5 expectations of our own, " in answer
    clear = len(found) - expected.count("")
    left = expected.count("still")
    assert f"Clear when looked at alone: {clear}; when all are looked at together" in answer
    assert f"at a false discovery rate of 5 %: {left}." in answer
    assert numbers[0][0].endswith(" of 5")


def test_the_same_encoder_without_pretraining_stands_beside_a_grid():
    result = result_of({1: [90.0, 91.0], 2: [92.0, 92.8]})
    assert untrained_sentence(result) == ""
    result.untrained = {name: {0: 91.0, 1: 91.9} for name in result.points}
    assert untrained_sentence(result) == (
        "Not pretrained, the same encoder gets 91.45 %: 1 of 2 points are better by more than noise, 1 worse."
    )
    assert "not pretrained 91.45 %" in grid_section.picture(result).alt
    untrained = {k: m["values"] for k, m in grid_section.grid_metrics({"g": result}).items() if k.startswith("untr")}
    assert untrained == {"untrained_validation_accuracy[g]": [91.0, 91.9]}
    result.untrained["temperature 1"] = {0: 80.0, 1: 81.0}
    assert untrained_sentence(result).startswith("Not pretrained, the same encoders get 80.50 to 91.45 %: 2 of 2")
    untrained = {k: m["values"] for k, m in grid_section.grid_metrics({"g": result}).items() if k.startswith("untr")}
    assert untrained["untrained_validation_accuracy[g: temperature 1]"] == [80.0, 81.0]
    assert "not pretrained" not in grid_section.picture(result).alt  # no single one to stand beside all


def test_pairs_lie_on_one_side_of_a_heat_map():
    policies = ["rotate", "crop", "jitter", "rotate+crop", "rotate+jitter", "crop+jitter"]
    grid = Grid(name="g", title="t", base=TINY_RUN, vary={"augment": policies}, figure="heatmap")
    points = grid_points(grid)
    values = {"h": {name: {0: 90.0 + i, 1: 90.5 + i} for i, name in enumerate(points)}}
    shown = grid_section.picture(GridResult(grid, points, 1000, values)).light.figure.axes[0]
    assert [label.get_text() for label in shown.get_xticklabels()] == ["rotate", "crop", "jitter"]
    cells = np.ma.masked_invalid(shown.collections[0].get_array()).reshape(3, 3)
    assert np.isfinite(cells.filled(np.nan)).tolist() == np.tril(np.ones((3, 3), bool)).tolist()


def test_a_run_that_failed_costs_the_verdicts_on_others_little():
    values = {1: [90.0, 91.0, 89.5], 2: [90.6, 91.9, 90.1], 3: [88.0, 89.3, 87.2], 4: [91.0, 91.8]}
    whole = result_of({t: row for t, row in values.items() if len(row) == 3})
    found, result = verdict(result_of(values), CLAIM), result_of(values)
    assert found == verdict(whole, CLAIM)
    assert (
        least_difference(result)
        >= verdict(result, Claim(say="", better={"temperature": 4.0}, worse={"temperature": 2.0})).interval
    )
    assert least_difference(result) > least_difference(whole)  # of a point with fewer runs less is known


def test_one_noisy_pair_of_points_is_not_called_precise():
    # Only one point has all seeds, so there is no noise to pool: what the two share tells it.
    result = result_of({1: [90.0, 92.0], 2: [91.0, 90.0, 90.5]})
    assert least_difference(result) == verdict(result, CLAIM).interval > 1


def test_few_validation_images_make_a_verdict_undecided():
    # Seeds that agree by luck: 90 % of 300 images have a standard error of 1.7 points.
    result = result_of({1: [90.0, 90.0], 2: [91.0, 91.0]}, n_validation=300)
    assert verdict(result, CLAIM).word == "undecided"
    assert verdict(result, CLAIM).interval == pytest.approx(1.96 * 100 * (0.905 * 0.095 / 300 / 2) ** 0.5)


def test_one_seed_does_not_tell_noise():
    result = result_of({1: [50.0], 2: [92.0]})
    found = verdict(result, CLAIM)
    assert (found.word, found.points) == ("undecided", pytest.approx(42.0))
    assert math.isnan(found.interval)
    assert finding(result, CLAIM).endswith("undecided here (+42.00 points, but one seed does not tell noise).")
    assert summary_sentence(result) == "Best of 2: temperature 2, 92.00 %; one seed does not tell noise."
    result.grid = result.grid.model_copy(update={"claims": (CLAIM,)})
    answer, numbers, _ = grid_section.grid_answer({"grid": result})
    assert "1 is within noise or has one seed, which does not tell it." in answer
    assert numbers[-1][:2] == ("+42.00", "± ?")
    assert math.isnan(least_difference(result))
    assert "so there are no bars" in grid_section.picture(result).light.caption
    # Where other points have more seeds, these tell the noise of a pair with one
    several = result_of({1: [50.0], 2: [92.0], 3: [60.0, 61.0], 4: [70.0, 71.2]})
    assert verdict(several, CLAIM).word == "confirmed"
    assert "| ours | undecided | +42.00 ± ? | ? |  |" in grid_section.findings_table({"grid": result})


def test_only_seeds_that_both_sides_have_are_compared():
    result = result_of({1: [90.0, 50.0], 2: [92.0]})
    assert verdict(result, CLAIM).points == pytest.approx(2.0)
    assert verdict(result_of({1: [90.0], 2: []}), CLAIM).word == "not run"


def test_the_summary_names_the_best_and_counts_what_is_worse_by_more_than_noise():
    said = summary_sentence(result_of({1: [90.0, 90.1], 2: [92.0, 92.1], 3: [91.9, 92.1]}))
    assert said.startswith("Best of 3: temperature 2, 92.05 %; 1 of the others are worse by more than noise")
    assert summary_sentence(result_of({1: [90.0], 2: []})) == "Too few points were run to say anything."


def test_what_a_notebook_shows_of_a_grid(monkeypatch):
    shown = []
    monkeypatch.setattr(grid_section, "display", lambda *things: shown.extend(things))
    result = result_of({1: [90.0, 91.0], 2: [92.0, 92.8]})
    result.grid = result.grid.model_copy(
        update={"claims": (CLAIM,), "figure": "lines", "x": "temperature", "paper": "It says so.", "question": "Which?"}
    )
    lost = GridResult(result.grid, result.points, 100, {"h": {name: {} for name in result.points}})
    lost.failures = [("temperature 1", 0, "no luck\x1b")]
    grid_section.show_grids({"g": result, "lost": lost})
    title, figure, said, lost_title, failed = shown
    assert title.data == lost_title.data == "## t\n\nWhich?"
    assert figure.name == "grid_g"
    assert "Two is better: so it is here (+1.90" in said.data
    assert "It says so." in said.data
    assert "temperature 2, 92.40 %" in said.data
    assert failed.data == "- Failed: temperature 1, seed 0: `no luck\\x1b`"
    found = verdict(result, CLAIM)
    answer, numbers, figure = grid_section.grid_answer({"g": result})
    assert answer.startswith("Of 1 finding of the paper, 1 holds on these images, 0 are the other way round")
    assert figure == "grid_g"
    assert [grid_section._small(text) for text in ("A head", "NT-Xent", "Blur")] == ["a head", "NT-Xent", "blur"]
    assert numbers[0][0] == "1 of 1"
    again = result.grid.model_copy(update={"claims": (CLAIM.model_copy(update={"say": "The same in other words"}),)})
    other = GridResult(again, result.points, result.n_validation, result.values)
    assert grid_section.grid_answer({"g": result, "other": other})[0].startswith("Of 1 finding of the paper,")
    assert grid_section.findings_table({"g": result, "other": other}).splitlines()[2:] == [
        f"| Two is better | paper | **confirmed** | {found.points:+.2f} ± {found.shown} | {found.p:.2g} | still |"
    ]
    assert grid_section.grid_metrics({"g": result})["validation_accuracy[g: temperature 2]"]["values"] == [92.0, 92.8]


def test_few_validation_images_do_not_say_that_a_run_learned_nothing():
    below = {"g": result_of({1: [37.5], 2: [80.0]}, 16)}
    found = {n: [check["passed"] for check in grid_section.grid_checks(below, 2, n)] for n in (16, 100)}
    assert found == {16: [True], 100: [True, False]}
