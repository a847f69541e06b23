"""Numbers that a run's name stands for: the losses of a few steps, and what an evaluation measures.

A run is named by its parameters and by the VERSION of each component, not by its code. So code that comes to give
other numbers under the same name has to raise a VERSION, and this is what notices. Learning rates are small, so that
rounding, which differs between processors and numbers of threads, is not magnified: it moves these numbers by 4e-5 at
most.
"""

import pytest
import torch

from contrastive import Settings, pretrain, resolve
from contrastive.augment import OPERATIONS, pipeline
from contrastive.evaluation import aggregate, evaluate, probes
from contrastive.methods import byol, simclr
from contrastive.training import loop

from .trainings import begun, take_steps

STEPS, LR = 5, 1e-4
FEW = dict(precision="float32", device="cpu", n_images=320, batch_size=64, epochs=2, warmup_epochs=0.4, lr=LR)
CNN = FEW | dict(base_channels=4)
# What is tried: its parameters, the class whose VERSION names it, the losses, and the length of all trained weights
GOLDEN = {
    "simclr": (CNN, "SimCLRSettings",
        [4.78067, 4.79028, 4.79018, 4.78377, 4.78771], 12.86108),
    "simclr, margin": (CNN | dict(loss="margin_triplet", temperature=0.4, head="linear", l2_normalize=False),
        "SimCLRSettings",
        [2.04175, 2.28193, 2.31952, 2.08550, 1.73862], 8.95374),
    "byol": (CNN | dict(method="byol", momentum=0.8, lr=LR / 2), "BYOLSettings",
        [3.86206, 3.83284, 3.78931, 3.71191, 3.65152], 38.57527),
    "mocov2": (CNN | dict(method="mocov2", momentum=0.8, queue_size=150), "MoCoSettings",
        [2.18361, 4.09267, 4.70738, 4.82866, 4.81236], 12.86002),
    "supervised": (CNN | dict(method="supervised"), "SupervisedSettings",
        [2.35999, 2.46016, 2.30292, 2.37565, 2.40777], 6.37586),
    "cnn, averaged": (CNN | dict(pool="avg", view_size=20), "CNNSettings",
        [4.82922, 4.83245, 4.81095, 4.82646, 4.83316], 12.96790),
    "resnet18": (FEW | dict(encoder="resnet18", view_size=8, optimiser="sgd", lr=10 * LR), "ResNetSettings",
        [4.83412, 4.83488, 4.83548, 4.83478, 4.83536], 112.36964),
    "policy simclr": (CNN | dict(augment="simclr"), "ViewSettings",
        [4.85028, 4.83011, 4.80239, 4.81628, 4.82073], 12.86093),
    "all operations": (CNN | dict(augment="+".join(OPERATIONS), second_augment="grey"), "ViewSettings",
        [4.86255, 4.85194, 4.85699, 4.85118, 4.84916], 12.86126),
    "adamw": (CNN | dict(optimiser="adamw", weight_decay=1, warmup_epochs=1, lr=5 * LR), "OptimiserSettings",
        [4.78067, 4.78912, 4.78693, 4.77562, 4.76886], 12.84772),
    "sgd": (CNN | dict(optimiser="sgd", weight_decay=0.1, lr=20 * LR, schedule="constant"), "OptimiserSettings",
        [4.78067, 4.79140, 4.79311, 4.78845, 4.79464], 12.83411),
    "another seed": (CNN | dict(seed=7), "RuntimeSettings, or DataSettings,",
        [4.78078, 4.79484, 4.77219, 4.82210, 4.79384], 12.89339),
}  # fmt: skip
MEASURED = {  # -> what it is, and by how much it may differ
    "raw_pixel_accuracy@20": (75.556, 0.4),
    "raw_pixel_accuracy@50": (86.389, 0.6),
    "raw_pixel_accuracy@200": (90.556, 0.6),
    "random_encoder_accuracy@50": (81.667, 0.6),
    "random_encoder_accuracy@200": (91.944, 0.6),
    "linear_accuracy@50": (77.778, 0.9),
    "linear_accuracy@200": (88.611, 0.9),
    "knn_accuracy": (83.333, 0.9),
    "supervised_accuracy@50": (58.056, 2.0),
    "supervised_accuracy@200": (56.111, 2.0),
    "supervised_plain_accuracy@50": (56.389, 2.0),
    "supervised_plain_accuracy@200": (63.889, 2.0),
    "linear_macro_auc@200": (99.199, 0.05),
    "linear_balanced_accuracy@200": (88.545, 0.9),
    "general_accuracy@200": (86.944, 1.5),
    "general_own_accuracy@200": (92.5, 1.5),
    "calibration_error@200": (7.085, 2.0),
    "alignment": (0.72, 0.01),
    "uniformity": (-1.716, 0.02),
    "effective_rank": (64.003, 0.3),
    "effective_rank_z": (29.123, 0.15),
    "feature_std_z": (0.256, 0.01),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(parameters):
    """The losses of the first steps, and the length of all trained weights after them."""
    training = begun(**parameters)
    losses, _ = take_steps(training, STEPS)
    trained = [p.detach().flatten() for p in training.method.parameters() if p.requires_grad]
    return [*losses, torch.cat(trained).double().norm().item()]


def assert_golden(name):
    parameters, component, losses, length = GOLDEN[name]
    seen, expected = numbers(parameters), [*losses, length]
    if seen != pytest.approx(expected, abs=1e-4):
        pytest.fail(
            f"{name}: losses and length of weights were {expected} and are {[round(x, 5) for x in seen]}. Runs that "
            "exist go by the same name and have the old numbers. If the change is intended, raise the VERSION of "
            f"{component} or of the component that was changed, and write the new numbers here."
        )


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_losses_are_those_that_the_version_stands_for(name):
    assert_golden(name)


@pytest.mark.parametrize(
    ("name", "where", "what", "value"),
    [
        ("policy simclr", pipeline, "JITTERED", 0.79),
        ("all operations", pipeline, "KNOTS", 6),
        ("byol", byol, "rising_momentum", lambda start, progress: start),
        ("simclr", simclr, "projection_head", lambda *args: torch.nn.Linear(args[1], args[2])),
        ("another seed", loop, "_mix", lambda seed, epoch: seed + epoch),
    ],
)
def test_a_change_of_a_number_is_noticed(monkeypatch, name, where, what, value):
    monkeypatch.setattr(where, what, value)
    with pytest.raises(pytest.fail.Exception, match="raise the VERSION"):
        assert_golden(name)


def measured():
    settings, images = resolve(Settings(preset="smoke", budgets=(20, 50, 200), supervised_steps=20, **CNN))
    return aggregate(evaluate(pretrain(settings, progress=False), images, progress=False).rows)


def test_an_evaluation_measures_what_its_version_stands_for(fresh_runs):
    metrics = measured()
    wrong = {
        name: (round(metrics[name]["mean"], 3), expected)
        for name, (expected, tolerance) in MEASURED.items()
        if abs(metrics[name]["mean"] - expected) > tolerance
    }
    assert not wrong, f"raise the VERSION of EvaluationSettings if this is intended: (is, was) {wrong}"


def test_a_change_of_what_is_measured_is_noticed(fresh_runs, monkeypatch):
    monkeypatch.setattr(probes, "unit_length", lambda features: features)
    with pytest.raises(AssertionError, match="raise the VERSION"):
        test_an_evaluation_measures_what_its_version_stands_for(fresh_runs)
