"""Numbers that a run's name stands for: the losses of a few steps, and what an evaluation measures.

A run is named by its parameters and by the VERSION of each component, not by the code. So code that comes to give other
numbers under the same name has to raise a VERSION, and this is what notices. All is computed in float32, by one thread.
"""

import pytest
import torch

from contrastive import Settings, pretrain, resolve
from contrastive.augment import OPERATIONS, pipeline
from contrastive.evaluation import evaluate
from contrastive.methods import byol, moco

from .trainings import begun, take_steps

STEPS, LR = 5, float(__import__("os").environ.get("LR","1e-4"))
FEW = dict(precision="float32", device="cpu", base_channels=4, n_images=320, batch_size=64, epochs=2, warmup_epochs=0.4, lr=LR)
# Parameters beside FEW -> the component that they try, and the losses. In double, a comment says what they try.
GOLDEN: dict[str, tuple[dict, str, list[float]]] = {
    "simclr": (dict(), "SimCLRSettings", []),
    "simclr with a margin": (
        dict(loss="margin_triplet_semi_hard", temperature=0.4, head="linear", l2_normalize=False), "SimCLRSettings", []),
    "byol": (dict(method="byol", momentum=0.8), "BYOLSettings", []),
    "mocov2": (dict(method="mocov2", momentum=0.8, queue_size=150), "MoCoSettings", []),
    "supervised": (dict(method="supervised"), "MethodSettings", []),
    "cnn, averaged": (dict(pool="avg", view_size=20), "CNNSettings", []),
    "resnet18": (dict(encoder="resnet18", view_size=8), "ResNetSettings", []),
    "policy simclr": (dict(augment="simclr"), "ViewSettings", []),
    "all operations": (dict(augment="+".join(OPERATIONS), second_augment="grey"), "ViewSettings", []),
    "adamw": (dict(optimiser="adamw", weight_decay=0.5, warmup_epochs=1), "OptimiserSettings", []),
    "sgd": (dict(optimiser="sgd", weight_decay=0.1, lr=20*LR, schedule="constant"), "OptimiserSettings", []),
    "another seed": (dict(seed=7), "DataSettings or RuntimeSettings", []),
}  # fmt: skip
