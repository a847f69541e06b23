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
    "mocov2": (CNN | dict(method="mocov2", momentum=0.8, queue_size=192), "MoCoSettings",
        [2.38360, 4.12466, 4.72528, 5.06761, 5.05362], 12.85995),
    "mocov3": (CNN | dict(method="mocov3", momentum=0.8, lr=LR / 2), "MoCoV3Settings",
        [3.45802, 3.39516, 3.41043, 3.40717, 3.43672], 46.58943),
    "simsiam": (CNN | dict(method="simsiam", hidden_dim=64, projection_dim=32, bottleneck_dim=8), "SimSiamSettings",
        [0.00650, -0.00832, -0.00363, 0.01085, 0.00382], 15.51549),
    "barlow_twins": (CNN | dict(method="barlow_twins", hidden_dim=32, projection_dim=16, lr=LR / 10),
        "BarlowTwinsSettings",
        [13.66937, 12.55297, 13.63762, 12.20508, 12.14145], 11.31721),
    "vicreg": (CNN | dict(method="vicreg", hidden_dim=32, projection_dim=16, lr=LR / 10), "VICRegSettings",
        [38.58498, 38.22473, 38.49251, 38.09122, 37.80212], 11.31739),
    "swav": (CNN | dict(method="swav", local_views=2, freeze_epochs=0.5), "SwAVSettings",
        [4.18554, 4.17281, 4.16085, 4.10388, 4.08502], 28.46035),
    "dino": (CNN | dict(method="dino", local_views=2, freeze_epochs=0.5, momentum=0.8), "DINOSettings",
        [2.47687, 2.62677, 2.56605, 2.49004, 2.40851], 48.08991),
    "supcon": (CNN | dict(method="supcon"), "SupConSettings",
        [4.99455, 5.01958, 5.01830, 4.92053, 4.89550], 12.86094),
    "supervised": (CNN | dict(method="supervised"), "SupervisedSettings",
        [2.35999, 2.46016, 2.30292, 2.37565, 2.40777], 6.37586),
    "cnn, averaged": (CNN | dict(pool="avg", view_size=20), "CNNSettings",
        [4.82922, 4.83245, 4.81095, 4.82646, 4.83316], 12.96790),
    "resnet9": (FEW | dict(encoder="resnet9", base_channels=4), "ResNet9Settings",
        [4.84609, 4.83280, 4.83229, 4.83646, 4.83482], 15.29685),
    "vit_tiny": (FEW | dict(encoder="vit_tiny", depth=2, drop_path=0.2), "ViTSettings",
        [4.84619, 4.84619, 4.84126, 4.84412, 4.84339], 38.36502),
    "vit_small": (FEW | dict(encoder="vit_small", depth=1, pool="cls", positions="learnable"), "ViTSettings",
        [4.84267, 4.86732, 4.83334, 4.84301, 4.82787], 45.02157),
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
    "lars": (CNN | dict(optimiser="lars", weight_decay=0.1, lr=50 * LR), "OptimiserSettings",
        [4.78067, 4.79143, 4.79323, 4.78882, 4.79548], 12.86051),
    "multi-crop": (CNN | dict(local_views=2, pool="avg"), "ViewSettings",
        [4.84289, 4.83697, 4.84226, 4.83145, 4.82499], 12.96760),
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
