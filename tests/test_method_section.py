"""What 04_methods shows: its figures and tables, what went wrong, and its page."""

import re

import nbformat
import pytest

from contrastive import Settings, load_images, resolve
from contrastive.report import method_section
from contrastive.report.index import write_index
from contrastive.report.recording import collect
from contrastive.report.render import render_page
from contrastive.report.runner import notebook_folder
from contrastive.storage.files import write_json
from contrastive.sweeps import comparison
from contrastive.sweeps.standings import Standings

from . import made_up_methods
from .cells import run_cells
from .made_up_methods import ALONE, FEW, MANY, standings

A, B, C = (("simclr", "cnn"), ("byol", "cnn"), ("dino", "cnn"))
NINE = ("simclr", "byol", "dino", "swav", "mocov2", "mocov3", "simsiam", "vicreg", "barlow_twins")
LONG = "timm:vit_tiny_patch16_224.augreg_in21k"


# --- Tables -------------------------------------------------------------------------------------------------------


def cells(table):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]


def test_the_best_of_each_column_and_what_is_within_noise_is_bold():
    s = standings({A: 0.60, B: 0.85, ("byol", "resnet9"): 0.84}, failed={A: {0: "no"}}, alone=ALONE | {"general": 0.7})
    head, _, *rows = cells(method_section.standings_table(s))
    assert head == ["method", "encoder", "100 labels", "1,000 labels"]
    assert {tuple(row[:2]) for row in rows[:2]} == {("BYOL", "cnn"), ("BYOL", "resnet9")}
    assert rows[2][:2] == ["SimCLR (2 of 3 seeds)", "cnn"]
    assert [row[2].startswith("**") for row in rows[:3]] == [True, True, False]
    own = s.found["simclr, cnn"].percent("linear", FEW)
    assert rows[2][2] == f"{own['mean']:.1f} ({own['low']:.1f} to {own['high']:.1f})"
    assert [row[:2] for row in rows[3:]] == [
        ["*labels alone*", "cnn"], ["*random weights*", "cnn"], ["*labels alone*", "resnet9"],
        ["*random weights*", "resnet9"], ["*ImageNet features*", ""],
    ]  # fmt: skip
    one = cells(method_section.standings_table(standings({A: 0.6})))
    assert one[0] == ["method", "100 labels", "1,000 labels"]
    assert {len(row) for row in one} == {3}


def test_gains_are_above_the_untrained_encoder_and_labels_alone():
    s = standings({A: 0.8, ("supcon", "cnn"): 0.9})
    head, _, first, second = cells(method_section.gains_table(s))
    assert head[1:] == [f"above {what}, {n} labels" for what in ("untrained", "labels alone") for n in ("100", "1,000")]
    d = s.less(s.entries[0], "random_encoder", FEW)
    assert first[:2] == ["SimCLR", f"**{d.points:+.1f} ({d.low:+.1f} to {d.high:+.1f})**"]
    assert float(first[3].strip("*").split()[0]) == pytest.approx(30, abs=5)
    assert second[0] == "SupCon (all labels)"
    s.comparison.references.clear()
    assert cells(method_section.gains_table(Standings(s.comparison, s.judging, FEW)))[2][1:] == ["–"] * 4


def test_costs_are_beside_those_of_simclr():
    s = standings({B: 0.8, A: 0.8, C: 0.5}, seconds={B: 600})
    table = method_section.costs_table(s)
    head, _, byol, simclr, _ = cells(table)
    assert head[1:] == ["epochs", "a run", "images/s", "a step", "memory of a step", "lasting memory"]
    # As they are made up: 0.01 s and 1 MiB for each letter of the method's name, and for one or ten more
    assert byol == ["BYOL", "4", "10 min", "2,560", "50 ms (×0.71)", "14 MiB (×0.88)", "1 MiB"]
    assert simclr == ["SimCLR", "4", "60 s", "1,829", "70 ms (×1.00)", "16 MiB (×1.00)", "1 MiB"]
    assert table.endswith("In brackets: times as much as SimCLR with the same encoder.")
    object.__setattr__(s.entries[2], "cost", "no room")
    table = method_section.costs_table(s)
    assert cells(table)[-1][3:] == ["–"] * 4
    assert table.endswith("- DINO: no step could be taken: no room")
    assert "times as much as BYOL" in method_section.costs_table(standings({B: 0.8, C: 0.5}))


# --- Checks and numbers -------------------------------------------------------------------------------------------


def test_failures_and_collapses_are_failed_checks_that_name_their_signs():
    fine = method_section.method_checks(standings({A: 0.8}))
    assert [(item["name"], item["passed"]) for item in fine] == [("all runs ended", True), ("no run collapsed", True)]
    assert method_section.problems_list(standings({A: 0.8})).startswith("No run failed, and none collapsed")
    s = standings({A: 0.8, B: 0.1}, collapsed={B: "spread 0.01, effective rank 1"}, failed={A: {1: "no memory"}})
    ended, collapsed = method_section.method_checks(s)
    assert (ended["passed"], ended["seen"]) == (False, "SimCLR: no memory (seed 1)")
    assert (collapsed["passed"], collapsed["seen"]) == (
        False, "BYOL: collapse of the features (spread 0.01, effective rank 1; seed 0)",
    )  # fmt: skip
    assert method_section.problems_list(s).splitlines() == [
        "- **SimCLR**: no memory (seed 1)",
        "- **BYOL**: collapse of the features (spread 0.01, effective rank 1; seeds 0, 1, 2)",
    ]
    s.comparison.references["cnn"][2] = comparison.Outcome(why="it diverged")
    assert (
        method_section.method_checks(s)[0]["seen"]
        == "SimCLR: no memory (seed 1); labels alone with cnn: it diverged (seed 2)"
    )
    assert method_section.problems_list(s).endswith("- **labels alone with cnn**: it diverged (seed 2)")


def test_labels_alone_that_taught_nothing_are_told_of():
    s = standings({A: 0.8}, alone={"supervised": 0.1, "supervised_plain": 0.1, "random_encoder": 0.2}, gain=0.0)
    assert re.fullmatch(r"- \*\*labels alone with cnn\*\* are hardly better than guessing \(10\.0 %\), .*",
                        method_section.problems_list(s))  # fmt: skip


def test_numbers_are_named_by_method_and_encoder():
    s = standings({A: 0.8, (B[0], "resnet9"): 0.5}, alone=ALONE | {"general": 0.7}, seconds={A: 33})
    metrics = method_section.method_metrics(s)
    assert metrics["linear_accuracy@100[simclr, cnn]"]["mean"] == pytest.approx(80, abs=4)
    assert metrics["supervised_accuracy@1000[resnet9]"]["mean"] == pytest.approx(60, abs=4)
    arms = {name.partition("_accuracy@")[0] for name in metrics if name.endswith("_accuracy@100[cnn]")}
    assert arms == {f"{arm}{how}" for arm in (*ALONE, "general") for how in ("", "_balanced")}
    assert not any("majority" in name for name in metrics)
    assert method_section.costs(s) == {"simclr, cnn": 33.0, "byol, resnet9": 60.0}


# --- Figures and pages --------------------------------------------------------------------------------------------


def test_the_figure_that_leads_has_the_best_and_the_other_one_has_all():
    few = standings({A: 0.8, B: 0.5})
    assert method_section.whole_picture(few, "mine") is None
    assert method_section.matrix_picture(few) is None
    shares = {(name, encoder): 0.4 + i / 50 for i, name in enumerate(NINE) for encoder in ("cnn", LONG)}
    many = standings(shares | {("supcon", "cnn"): 0.9}, seeds=2)
    lead, whole = method_section.leading_picture(many, "mine"), method_section.whole_picture(many, "mine")
    assert (lead.name, whole.name) == ("methods", "all_methods")
    rows = [{row["what"]: row for row in picture.light.rows} for picture in (lead, whole)]
    assert [len(own) for own in rows] == [12 + 4, 19 + 4]
    assert set(rows[0]) < set(rows[1])
    assert "SupCon with cnn (all labels)" in rows[1]
    own = many.found["simclr, cnn"].percent("linear", MANY)
    assert rows[1]["SimCLR with cnn"]["percent"] == own["mean"]  # the last number of labels
    (first, *_) = lead.light.figure.axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert max(map(len, names)) <= 34
    assert any(re.fullmatch(r".*…6_224\.augreg_in21k|.*….{12}", name) for name in names)
    assert first.get_title(loc="left") == "100 labels"


def test_rows_are_drawn_as_what_they_are(monkeypatch):
    drawn = []
    monkeypatch.setattr(method_section.method_plots, "standing_dots", lambda rows, *args, name: drawn.append(rows))
    s = standings({A: 0.85, B: 0.85, C: 0.4, ("supcon", "cnn"): 0.9})
    method_section.leading_picture(s, "mine")
    method_section.whole_picture(s, "mine")
    kinds = [{row.name: row.kind for row in rows} for rows in drawn]
    assert kinds[0] == {
        "SimCLR": "tied", "BYOL": "tied", "DINO": "method", "labels alone": "reference", "random weights": "reference",
    }  # fmt: skip
    assert kinds[1] == {**kinds[0], "SupCon (all labels)": "reference"}


def test_a_matrix_of_methods_and_encoders_has_the_values_and_gains():
    shares = {(name, encoder): 0.5 for name in ("simclr", "byol") for encoder in ("cnn", "resnet9")}
    s = standings({**shares, A: 0.9, ("supcon", "cnn"): 1.0}, seeds=2)
    picture = method_section.matrix_picture(s)
    rows = {(row["method"], row["encoder"]): row for row in picture.light.rows}
    assert len(rows) == 4
    assert rows["SimCLR", "cnn"]["percent"] == s.mean(s.entries[0], FEW)
    assert rows["SimCLR", "cnn"]["points_above_untrained"] == s.less(s.entries[0], "random_encoder", FEW).points
    assert "the best is SimCLR with cnn" in picture.alt


@pytest.fixture(scope="module")
def forty():
    """The page of forty methods and encoders, some of which collapsed, and its results."""
    labels = load_images("digits").test_labels.numpy()
    encoders = ("cnn", "vit_tiny", "resnet18", LONG)
    shares = {(m, e): 0.45 + (7 * i + 3 * j) % 11 / 30 for j, e in enumerate(encoders) for i, m in enumerate(NINE)}
    shares |= {("supcon", encoder): 0.9 for encoder in encoders}
    sick = {(name, "vit_tiny"): "spread 0.03, effective rank 1" for name in NINE[:7]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_up_methods, "MANY", 600)
        made = standings(shares, alone=ALONE | {"general": 0.6}, labels=labels, collapsed=sick).comparison
        patch.setattr(comparison, "compare", lambda settings, images: made)
        given = {"preset": "smoke", "general": "none", "method_seeds": 3, "encoders": ",".join(encoders)}
        notebook = run_cells(notebook_folder() / "04_methods.ipynb", given)
    results = {**collect(notebook), "status": "failed", "notebooks": ["04_methods"], "seconds": {"total": 1.0}}
    return render_page("04_methods", nbformat.from_dict(notebook), results, [], ["04_methods"]), results


def test_forty_rows_fit_a_phone_and_a_screen(forty, opened, tmp_path):
    (tmp_path / "page.html").write_text(forty[0])
    for width, height in ((390, 2500), (1200, 1100)):
        page = opened(tmp_path / "page.html", width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tiles = page.locator(".tiles").bounding_box()
        assert tiles["y"] < height  # the answer is not pushed away by what failed
    assert page.locator(".answer p").first.inner_text().count(".") >= 1
    assert page.locator("article .scroll tbody tr").count() > 120
    assert page.locator(".banner.failed p").count() == 1


def test_results_of_forty_are_whole(forty, tmp_path):
    results = forty[1]
    assert len([name for name in results["metrics"] if name.startswith("linear_accuracy@100[")]) == 40
    assert (results["headline_labels"], results["headline_metric"]) == (600, "accuracy")
    assert results["provenance"]["seeds"] == [0, 1, 2]
    assert results["settings"]["n_seeds"] == 1  # the report's own
    assert results["answers"]["04_methods"]["figure"] == "methods"
    assert "2 more" not in results["checks"][0]["seen"]
    assert "and 3 more" in results["checks"][1]["seen"]
    # A report of this notebook alone has its place in the index
    (tmp_path / "own").mkdir()
    write_json(tmp_path / "own" / "results.json", results)
    page = write_index(tmp_path).read_text()
    assert 'class="damaged"' not in page
    assert results["answers"]["04_methods"]["answer"][:60] in page


def test_the_numbers_of_labels_in_figures_are_few():
    s = standings({A: 0.8})
    assert method_section.shown_budgets(s) == [FEW, MANY]
    settings, _ = resolve(Settings(preset="smoke"))
    assert settings.evaluation.budgets == (100, 600)
