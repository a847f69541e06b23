"""Methods and encoders that are compared: with which settings, what is done once, and what becomes of failures."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

from contrastive import Settings, resolve
from contrastive.data import most_labels, n_unlabelled
from contrastive.evaluation import SCRATCH, labelled
from contrastive.evaluation.labelled import recipe
from contrastive.settings import METHODS, RunError, UserError
from contrastive.sweeps import comparison
from contrastive.sweeps.comparison import check_methods, compare, entries, with_method_seeds
from contrastive.training.footprint import StepCost

from .few_images import images_of, without_test

UNLABELLED = [name for name in METHODS if not METHODS[name].NEEDS_LABELS]
TINY = dict(preset="smoke", base_channels=2, n_images=256, epochs=1, budgets=(20, 100), supervised_steps=2,
            general="none", method_jobs=1)  # fmt: skip
PAIR = dict(TINY, methods="simclr,byol", method_seeds=2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compared(**given):
    settings, images = resolve(Settings(**given))
    return compare(settings, images, progress=False)


def found(**given):
    settings, images = resolve(Settings(**given))
    return entries(settings, images)


# --- What is compared ---------------------------------------------------------------------------------------------


def test_by_itself_every_method_that_needs_no_label_is_compared_with_the_reports_encoder():
    assert [(entry.method, entry.encoder) for entry in found(preset="smoke")] == [(m, "cnn") for m in UNLABELLED]
    both = found(preset="smoke", methods="byol,simclr,byol", encoders="cnn,resnet9")
    assert [entry.key for entry in both] == ["byol, cnn", "simclr, cnn", "byol, resnet9", "simclr, resnet9"]
    both = found(preset="smoke", methods="supcon,simclr,all")
    assert [entry.method for entry in both] == ["supcon", "simclr", *(m for m in UNLABELLED if m != "simclr")]


def test_each_has_the_settings_of_a_report_of_its_own():
    """Whatever the method and the encoder of the report that compares them, and what follows from these."""
    base = dict(preset="smoke", method="swav", batch_size=64, encoder="resnet9", methods="all,supcon")
    for entry in found(**base, encoders="vit_tiny", method_epochs=3):
        own = dict(preset="smoke", batch_size=64, epochs=3, method=entry.method, encoder="vit_tiny")
        assert entry.settings.identity == resolve(Settings(**own))[0].identity
    own = dict(preset="smoke", method="byol", momentum=0.5, base_channels=3, lr=1e-3)
    byol, simclr = found(**own, methods="byol,simclr")
    assert byol.settings.identity == resolve(Settings(**own))[0].identity
    assert simclr.settings.flat()["base_channels"] == 3


def test_seeds_are_the_same_for_all(fresh_runs):
    a, b = found(**PAIR, seed=7)
    assert [entry.of_seed(i).runtime.seed for entry in (a, b) for i in (0, 1)] == [7, 8, 7, 8]
    own = resolve(Settings(**TINY, method="byol", seed=8))[0]
    assert b.of_seed(1).identity == own.identity


def test_images_and_labels_suffice_for_every_seed():
    """With groups, how many images there are to train on differs by seed, and how many labels beside a fold."""
    images = without_test(120, groups=np.random.default_rng(2).integers(0, 20, 120))
    beside, unlabelled = ([number(images, i) for i in range(6)] for number in (labels_beside_folds, n_unlabelled))
    assert min(beside) < beside[0]
    assert min(unlabelled) < unlabelled[0]
    settings, _ = resolve(Settings(methods="simclr", method_seeds=6, general="none"), images)
    (entry,) = entries(settings, images)
    assert entry.settings.evaluation.budgets[-1] == min(beside)
    for i in range(6):
        own, _ = resolve(entry.of_seed(i), images)
        assert own.data.n_images == min(unlabelled)
        assert own.evaluation.budgets == entry.settings.evaluation.budgets


def labels_beside_folds(images, seed):
    return most_labels(images, range(seed, seed + 1))


def test_what_cannot_be_used_is_named_before_anything_starts(fresh_runs):
    for given, said in (
        (dict(methods="simclr,barlow"), "unknown method 'barlow'. Did you mean 'barlow_twins'?"),
        (dict(encoders="cnnn"), "unknown encoder 'cnnn'. Did you mean 'cnn'?"),
        (dict(encoders="all"), "unknown encoder 'all'"),
        (dict(methods=""), "at least one is needed"),
        (dict(minutes=1, method_epochs=2), "method_epochs was given, too. Leave one of them out"),
    ):
        with pytest.raises(UserError, match=said.replace("?", r"\?")):
            Settings(preset="smoke", **given)
    few, folded = images_of(labelled=30), without_test()
    for images, methods, said in (
        (few, "simclr,supcon", "04_methods, method=supcon with encoder=cnn: .* learns from labels, and 30 of 60"),
        (folded, "supervised", "04_methods, method=supervised with encoder=cnn: .* has no test split with labels"),
        (images_of(), "supervised,simclr", "method=supervised .* local_views=2: method supervised has no use"),
        (images_of(), "simclr", "04_methods, method=simclr with encoder=cnn: parameter local_view_size=8: "),
    ):
        given = {"local_views": 2} if "local_view" in said else {}
        given |= {"local_view_size": 8} if "local_view_size" in said else {}
        settings = resolve(Settings(preset="smoke", methods=methods), images_of())[0].replace(**given)
        with pytest.raises(UserError, match=said) as caught:
            check_methods(settings.asking({"methods", *given}), images)
        assert "\n" not in str(caught.value)
    assert not fresh_runs.exists()


def test_settings_with_the_seeds_of_methods_are_what_was_asked_for_and_no_more():
    settings, images = resolve(Settings(**PAIR))
    seeded, _ = resolve(with_method_seeds(settings), images)
    assert (seeded.report.n_seeds, seeded.identity, seeded.asked) == (2, settings.identity, settings.asked)
    assert with_method_seeds(settings.replace(n_seeds=9)).report.n_seeds == 9


# --- Running it ---------------------------------------------------------------------------------------------------


def test_all_is_trained_and_measured_once_and_then_read(fresh_runs, monkeypatch):
    first = compared(**PAIR)
    assert {key: sorted(by) for key, by in first.outcomes.items()} == {"simclr, cnn": [0, 1], "byol, cnn": [0, 1]}
    assert all(own.why == "" and own.seconds > 0 for by in first.outcomes.values() for own in by.values())
    measured = {name.partition("@")[0] for name in first.outcomes["byol, cnn"][1].evaluation.values}
    assert {name.removesuffix("_accuracy") for name in measured if "balanced" not in name and "auc" not in name} == {
        "linear"
    }
    arms = {name.rpartition("_accuracy@")[0] for name in first.references["cnn"][0].evaluation.values}
    assert {*SCRATCH, "random_encoder"} <= arms
    monkeypatch.setattr("contrastive.training.runs.start", None)  # nothing is trained again
    monkeypatch.setattr("contrastive.training.footprint.start", None)  # nor timed
    monkeypatch.setattr("contrastive.evaluation.evaluator._evaluate", None)  # nor measured
    again = compared(**PAIR)
    assert [entry.cost for entry in again.entries] == [entry.cost for entry in first.entries]
    for key, by_seed in first.outcomes.items():
        for i, own in by_seed.items():
            assert again.outcomes[key][i].evaluation.rows == own.evaluation.rows
            assert again.outcomes[key][i].checks == own.checks


def test_networks_from_labels_are_trained_once_for_each_encoder_and_seed(fresh_runs, monkeypatch):
    trained, real = [], labelled.train
    monkeypatch.setattr(
        labelled, "train", lambda training: trained.append(training.settings.runtime.seed) or real(training)
    )
    compared(**PAIR)
    networks = len(SCRATCH) * 2  # two numbers of labels
    assert trained == [0] * networks + [1] * networks


def test_no_method_changes_how_networks_from_labels_are_trained():
    own = found(preset="smoke", methods="all,supcon", method_epochs=3)
    how = {
        recipe(entry.settings, n, None, augmented)[0].identity for entry in own for n in (50,) for augmented in (True,)
    }
    assert len(own) == 10
    assert len(how) == 1


def test_a_run_that_fails_does_not_stop_the_others(fresh_runs, monkeypatch):
    real = comparison.pretrain

    def breaks(settings, progress):
        if settings.method.name == "simclr" and settings.runtime.seed == 0:
            raise RunError("the loss is no longer finite")
        if settings.method.name == "byol" and settings.runtime.seed == 1:
            raise ValueError("what\nnobody foresaw")
        return real(settings, progress)

    monkeypatch.setattr(comparison, "pretrain", breaks)
    result = compared(**PAIR)
    told = {(key, i): own.why for key, by in result.outcomes.items() for i, own in by.items()}
    assert told == {
        ("simclr, cnn", 0): "the loss is no longer finite", ("byol, cnn", 0): "", ("simclr, cnn", 1): "",
        ("byol, cnn", 1): "ValueError: what nobody foresaw",
    }  # fmt: skip
    # What needs no method was measured beside the runs that ended
    assert {i: own.why for i, own in result.references["cnn"].items()} == {0: "", 1: ""}
    monkeypatch.setattr(comparison, "pretrain", lambda *args, **more: breaks(Settings(preset="smoke"), False))
    with pytest.raises(RunError, match=r"no run ended\. The first one: the loss is no longer finite"):
        compared(**PAIR)


def test_an_interrupted_comparison_goes_on(fresh_runs, monkeypatch):
    real, calls = comparison.pretrain, []

    def interrupted(settings, progress):
        calls.append(settings)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(settings, progress)

    monkeypatch.setattr(comparison, "pretrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(**PAIR)
    # All with the first seed come before any with the second
    assert [(own.method.name, own.runtime.seed) for own in calls] == [("simclr", 0), ("byol", 0), ("simclr", 1)]
    assert len(list(fresh_runs.glob("*/encoder.safetensors"))) == 2
    monkeypatch.setattr(comparison, "pretrain", real)
    assert all(own.evaluation for by in compared(**PAIR).outcomes.values() for own in by.values())


def test_several_processes_give_the_same_numbers(fresh_runs, tmp_path, monkeypatch):
    one = compared(**PAIR)
    monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "others"))
    two = compared(**{**PAIR, "method_jobs": 2})
    for key, by_seed in one.outcomes.items():
        assert [two.outcomes[key][i].evaluation.rows for i in (0, 1)] == [by_seed[i].evaluation.rows for i in (0, 1)]
        assert two.references["cnn"][0].evaluation.rows == one.references["cnn"][0].evaluation.rows


def test_a_process_that_is_killed_fails_its_own_run_only(fresh_runs, monkeypatch, capsys):
    def dies(settings, arms):
        if settings.method.name == "byol":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does for want of memory
        return comparison.Outcome(evaluation="measured")

    monkeypatch.setattr(comparison, "_outcome", dies)
    monkeypatch.setattr(comparison, "_cost", lambda settings: StepCost(1.0, 1, 1))
    result = compared(**{**PAIR, "method_jobs": 2, "method_seeds": 1})
    assert result.outcomes["byol, cnn"][0].why == "its process was killed, likely for want of memory"
    assert result.outcomes["simclr, cnn"][0].evaluation == "measured"
    assert "go one at a time" in capsys.readouterr().err


def test_processes_are_as_many_as_pay_for_all_runs_also_for_those_that_are_done(monkeypatch):
    asked = []
    monkeypatch.setattr(comparison, "jobs_that_pay", lambda *how: asked.append(how) or 1)
    monkeypatch.setattr(comparison, "in_workers", lambda function, tasks, jobs: iter(()))
    for more in ({}, {"minutes": 3.0}):
        settings, images = resolve(Settings(**{**PAIR, "method_jobs": None}, **more))
        monkeypatch.setattr(comparison, "_with_costs", lambda found, *others: found)
        with pytest.raises(KeyError):  # of the runs that the workers did not give
            compare(settings, images, progress=False)
    steps = 2 * 2 * 4  # an epoch has four
    assert [how[1:2] for how in asked] == [(4,), (4,)]
    assert asked[0][2] == steps
    assert asked[1][2] > 1e6  # how many these are is not known yet


# --- Minutes ------------------------------------------------------------------------------------------------------


def test_with_minutes_each_gets_the_epochs_that_fit_and_the_same_again(fresh_runs, monkeypatch):
    timed = []

    def pace(settings):
        timed.append(settings.method.name)
        return StepCost({"simclr": 0.005, "byol": 0.02}[settings.method.name] * len(timed), 10, 1)

    monkeypatch.setattr(comparison, "step_cost", pace)
    monkeypatch.setattr(comparison, "_outcomes", lambda what, tasks, jobs, progress: (
        (task, comparison.Outcome(evaluation="measured")) for task in tasks))  # fmt: skip
    settings, images = resolve(Settings(**PAIR, minutes=0.3, method="byol"))
    steps = settings.data.n_images // settings.optimiser.batch_size
    for _ in range(2):  # the pace is measured once
        own = compare(settings, images, progress=False)
        epochs = {entry.method: entry.settings.optimiser.epochs for entry in own.entries}
        assert epochs == {"simclr": int(18 / (0.005 * steps)), "byol": int(18 / (0.02 * 2 * steps))}
        assert [entry.cost.seconds for entry in own.entries] == [0.005, 0.04]
    assert timed == ["simclr", "byol"]
    least = compare(settings.replace(minutes=1e-6), images, progress=False)
    assert {entry.settings.optimiser.epochs for entry in least.entries} == {1}
    compare(settings.replace(epochs=9, seed=5), images, progress=False)
    assert timed == ["simclr", "byol"]  # which does not change how long a step takes
    compare(settings.replace(batch_size=32), images, progress=False)
    assert timed == ["simclr", "byol"] * 2  # of other steps it is another


def test_what_cannot_be_timed_is_told_and_stops_only_what_needs_it(fresh_runs, monkeypatch):
    def breaks(settings):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(comparison, "step_cost", breaks)
    monkeypatch.setattr(comparison, "_outcomes", lambda what, tasks, jobs, progress: (
        (task, comparison.Outcome(evaluation="measured")) for task in tasks))  # fmt: skip
    assert {entry.cost for entry in compared(**PAIR).entries} == {"OutOfMemoryError: no room"}
    with pytest.raises(RunError, match=r"simclr, cnn: its steps cannot be timed: OutOfMemoryError: no room"):
        compared(**PAIR, minutes=1.0)


def test_a_plug_in_without_a_title_is_called_by_its_name(monkeypatch):
    (entry,) = found(**{**PAIR, "methods": "byol"})
    assert entry.title == "BYOL"
    monkeypatch.setattr(METHODS["byol"], "TITLE", "")
    assert dataclasses.replace(entry).title == "byol"
