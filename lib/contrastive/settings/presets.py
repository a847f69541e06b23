"""What the parameters are, unless something else is asked for."""

from collections import ChainMap
from collections.abc import Iterable
from typing import Any

# How the long presets are evaluated
SEVERAL: dict[str, Any] = dict(
    n_seeds=5, label_draws=2, evaluation="full", supervised_steps=2000, ablation_epochs=10, ablation_seeds=3,
)  # fmt: skip

# What suits each kind of images: what preset quick takes where nobody asked for something else. Of digits, these are
# the parameters' own defaults. Of photographs, from first trials on validation images of CIFAR-10, with one seed; of
# grey images nothing else was tried yet.
RECIPES: dict[str, dict[str, Any]] = {
    "digits": {},
    "photos": dict(batch_size=256, lr=2e-3, warmup_epochs=5, epochs=40, simclr=dict(temperature=0.2)),
    "grey": dict(),
}

# Under the name of an encoder or a method: what counts where that is chosen
PRESETS: dict[str, dict[str, Any]] = {
    # Seconds on bundled data: shows that everything works, not how well.
    "smoke": dict(
        dataset="sklearn_digits", n_images=512, epochs=4, batch_size=128, budgets=(100, 600), supervised_steps=40,
        grids=("left_out",), ablation_epochs=1, ablation_base_channels=4, ablation_labels=300, ablation_seeds=1,
        cnn=dict(base_channels=8), mocov2=dict(momentum=0.9),
    ),
    # Minutes on two cores: what `make report` runs. These are the parameters' own defaults.
    "quick": {},
    # The recipe as written, over several seeds: hours on two cores.
    "full": dict(
        augment="simclr", epochs=500, batch_size=256, lr=1e-3, warmup_epochs=10, grids=("all",), **SEVERAL,
        simclr=dict(temperature=0.5),
    ),
    # The recipe for digits, longer, with views of 24 pixels, which cost a quarter less.
    "digits": dict(
        augment="handwriting", epochs=150, warmup_epochs=5, view_size=24,
        grids=("left_out", "flip_blur", "temperature", "head", "n_images", "recipe"), **SEVERAL,
    ),
    # The recipe for photographs, longer, with several seeds: hours on two cores.
    "photos": RECIPES["photos"] | dict(augment="natural", epochs=300, **SEVERAL),
    # The recipe for grey scans such as X-rays, longer, with several seeds: hours on two cores.
    "xray": RECIPES["grey"] | dict(augment="grey", epochs=150, **SEVERAL),
}  # fmt: skip


def preset_values(preset: str, chosen: Iterable[str]) -> dict[str, Any]:
    """What a preset says where these encoders and methods are chosen."""
    return _values(PRESETS[preset], chosen)


def recipe_values(kind: str, chosen: Iterable[str]) -> dict[str, Any]:
    """What suits images of that kind, where these encoders and methods are chosen."""
    return _values(RECIPES[kind], chosen)


def recipe_names() -> set[str]:
    """The parameters of any recipe."""
    parts = [values for recipe in RECIPES.values() for values in (recipe, *recipe.values()) if isinstance(values, dict)]
    return {name for part in parts for name, value in part.items() if not isinstance(value, dict)}


def _values(values: dict[str, Any], chosen: Iterable[str]) -> dict[str, Any]:
    own = [values[name] for name in chosen if name in values]
    return dict(ChainMap(*own, {name: value for name, value in values.items() if not isinstance(value, dict)}))
