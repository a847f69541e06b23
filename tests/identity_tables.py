"""Defaults, names of runs and other values of every parameter, for tests of what names a run."""

# Every component's VERSION and defaults. A default that changes gives the same parameters other weights (a name tells
# only what differs from the defaults): raise VERSION with it, then both here. A new parameter is a new entry, and
# renames nothing.
ENCODER = {"name": "cnn", "initial_weights": "random", "initial_sha256": None}  # of every encoder
COMPONENTS = {
    "DataSettings": (
        1,
        {
            "dataset": "auto", "n_images": None, "image_size": None, "fit": "crop", "background": "white",
            "window": "auto", "label": None, "group": None, "split_seed": 0, "skip_damaged": False,
            "drop_copies": False, "follow_links": False,
        },
    ),
    "ViewSettings": (
        1,
        {
            "augment": "auto", "second_augment": None, "view_size": None, "local_views": None, "local_view_size": None,
            "local_augment": None,
        },
    ),
    "OptimiserSettings": (
        1,
        {
            "name": "adam", "batch_size": 128, "epochs": 15, "lr": 5e-3, "schedule": "cosine", "warmup_epochs": 1,
            "weight_decay": 1e-6,
        },
    ),
    "RuntimeSettings": (
        1, {"seed": 0, "precision": "auto", "device": "auto", "checkpoint_seconds": 30, "cuda_graph": True},
    ),
    "CNNSettings": (1, {**ENCODER, "base_channels": 32, "pool": "none"}),
    "ResNet9Settings": (1, {**ENCODER, "base_channels": 64}),
    "ResNetSettings": (2, {**ENCODER, "stem": "auto"}),
    "ViTSettings": (
        1, {**ENCODER, "patch_size": None, "depth": 12, "pool": "avg", "positions": "sincos", "drop_path": 0.0},
    ),
    "OutsideSettings": (1, {**ENCODER, "input_size": None}),
    "SimCLRSettings": (
        1,
        {
            "name": "simclr", "loss": "nt_xent", "l2_normalize": True, "temperature": 1.0, "head": "mlp",
            "projection_dim": 128,
        },
    ),
    "BYOLSettings": (2, {"name": "simclr", "momentum": None, "hidden_dim": 512, "projection_dim": 128}),
    "MoCoSettings": (
        2,
        {
            "name": "simclr", "temperature": 0.2, "momentum": 0.99, "queue_size": None, "head": "mlp",
            "projection_dim": 128,
        },
    ),
    "MoCoV3Settings": (
        1,
        {
            "name": "simclr", "temperature": 0.2, "momentum": None, "hidden_dim": 512, "projection_dim": 128,
            "freeze_patches": True,
        },
    ),
    "SimSiamSettings": (1, {"name": "simclr", "hidden_dim": 512, "projection_dim": 512, "bottleneck_dim": 128}),
    "BarlowTwinsSettings": (
        1, {"name": "simclr", "off_diagonal": 0.005, "hidden_dim": 1024, "projection_dim": 1024},
    ),
    "VICRegSettings": (
        1,
        {
            "name": "simclr", "invariance": 25.0, "variance": 25.0, "covariance": 1.0, "hidden_dim": 1024,
            "projection_dim": 1024,
        },
    ),
    "SwAVSettings": (
        1,
        {
            "name": "simclr", "temperature": 0.1, "epsilon": 0.05, "n_prototypes": None, "freeze_epochs": 1,
            "hidden_dim": 512, "projection_dim": 128,
        },
    ),
    "DINOSettings": (
        1,
        {
            "name": "simclr", "student_temperature": 0.1, "teacher_temperature": 0.04, "teacher_temperature_end": 0.07,
            "momentum": None, "centre_momentum": 0.9, "n_prototypes": None, "freeze_epochs": 1, "hidden_dim": 512,
            "projection_dim": 128,
        },
    ),
    "SupConSettings": (1, {"name": "simclr", "temperature": 0.1, "head": "mlp", "projection_dim": 128}),
    "SupervisedSettings": (1, {"name": "simclr"}),
    "EvaluationSettings": (
        5,
        {
            "budgets": None, "label_draws": 1, "budget_draw": "balanced", "level": "basic", "transfer": None,
            "general": "auto", "weights": None, "general_size": None, "supervised_steps": 600,
        },
    ),
    "ReportSettings": (1, {"n_seeds": 1, "label_first": 50, "map_images": 2000}),
    "ComparisonSettings": (
        1,
        {
            "methods": ("all",), "encoders": None, "method_seeds": 3, "method_epochs": None, "minutes": None,
            "method_jobs": None,
        },
    ),
    "AblationSettings": (
        1,
        {
            "grids": ("left_out", "temperature"), "ablation_epochs": 4, "ablation_base_channels": 12,
            "ablation_labels": 1000, "ablation_seeds": 2, "ablation_jobs": None,
        },
    ),
}  # fmt: skip

# Names that runs have on disks and in reports. One that changes makes people train again what they have: only a raised
# VERSION is a reason.
NAMES = [
    (dict(preset="smoke", dataset="sklearn_digits", n_images=512), "sklearn_digits-simclr-cnn-4ep-s0-b66386f4"),
    (dict(), "mnist-simclr-cnn-15ep-s0-a947bf63"),
    (dict(preset="digits"), "mnist-simclr-cnn-150ep-s0-992a9e88"),
    (dict(preset="full", augment="simclr"), "mnist-simclr-cnn-500ep-s0-a14f27f2"),
    (dict(method="simclr", encoder="resnet18"), "mnist-simclr-resnet18-15ep-s0-6e885f26"),
    (dict(method="byol", encoder="cnn"), "mnist-byol-cnn-15ep-s0-e97428d1"),
    (dict(method="byol", encoder="resnet18"), "mnist-byol-resnet18-15ep-s0-4b0c0b89"),
    (dict(method="mocov2", encoder="cnn"), "mnist-mocov2-cnn-15ep-s0-0ea3a973"),
    (dict(method="mocov2", encoder="resnet18"), "mnist-mocov2-resnet18-15ep-s0-6fc3b635"),
    (dict(method="supervised", encoder="cnn"), "mnist-supervised-cnn-15ep-s0-3efcdb4d"),
    (dict(method="supervised", encoder="resnet18"), "mnist-supervised-resnet18-15ep-s0-30e66c02"),
    (
        dict(
            optimiser="sgd", lr=0.1, seed=7, device="cuda:3", precision="bfloat16", view_size=24, second_augment="none"
        ),
        "mnist-simclr-cnn-15ep-s7-4971a722",
    ),
]

# Each parameter, with another value than those of `known` have; where it needs one, with the choice that it belongs to
OTHERS = {
    "n_images": 4000, "augment": "simclr", "second_augment": "none", "view_size": 24, "local_views": 3,
    "local_view_size": 12, "local_augment": "none",
    "encoder": "resnet18", "base_channels": 31, "pool": "avg", "stem": "small", "initial_sha256": "1" * 64,
    "patch_size": 5, "depth": 3, "positions": "learnable", "drop_path": 0.1, "input_size": 64,
    "method": "mocov2", "loss": "nt_logistic", "l2_normalize": False, "temperature": 0.31, "head": "linear",
    "projection_dim": 64, "momentum": 0.5, "hidden_dim": 64, "queue_size": 64, "freeze_patches": False,
    "bottleneck_dim": 32, "off_diagonal": 0.01, "invariance": 1.0, "variance": 1.0, "covariance": 2.0, "epsilon": 0.1,
    "n_prototypes": 50, "freeze_epochs": 2, "student_temperature": 0.2, "teacher_temperature": 0.05,
    "teacher_temperature_end": 0.06, "centre_momentum": 0.8,
    "optimiser": "sgd", "batch_size": 64, "epochs": 16, "lr": 1e-3, "schedule": "constant", "warmup_epochs": 2,
    "weight_decay": 1e-3, "seed": 1, "precision": "bfloat16", "device": "cuda",
}  # fmt: skip
# How images are read names no run: their checksum does, which follows from it.
READING = {
    "dataset": "/elsewhere/images", "image_size": 32, "fit": "pad", "background": "black", "window": "0:4095",
    "label": "effusion",
    "group": r"(p\d+)", "split_seed": 1, "skip_damaged": True, "drop_copies": True, "follow_links": True,
}  # fmt: skip
WITHOUT_WEIGHT = READING | {
    "preset": "full", "checkpoint_seconds": 1, "cuda_graph": False, "budgets": (10, 20), "label_draws": 3,
    "budget_draw": "random",
    "evaluation": "full", "transfer": "mnist", "general": "none", "weights": "/elsewhere/x.pth", "general_size": 64,
    "supervised_steps": 7, "n_seeds": 3, "label_first": 5, "map_images": 100,
    "grids": ("temperature",), "ablation_epochs": 2, "ablation_base_channels": 3, "ablation_labels": 30,
    "initial_weights": "/elsewhere/weights.pth", "ablation_seeds": 1, "ablation_jobs": 2,
    "methods": ("byol",), "encoders": ("cnn",), "method_seeds": 2,
    "method_epochs": 3, "minutes": 1.0, "method_jobs": 2,
}  # fmt: skip
