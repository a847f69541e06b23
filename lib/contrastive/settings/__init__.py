"""Parameters by component, presets, what names a run, and the one error type for users.

`Settings(epochs=3)` takes flat names and checks them; `settings.optimiser.epochs` reads them.
"""

from .components import (
    Component,
    DataSettings,
    EncoderSettings,
    Float,
    Int,
    MethodSettings,
    OptimiserSettings,
    RuntimeSettings,
    ViewSettings,
)
from .errors import RunError, UserError, did_you_mean, one_of
from .model import Settings, as_text, decisive_parameters, notebook_settings, parameters, rebased
from .paths import absolute, checkout, data_root, grid_names, grids_folder, runs_root
from .presets import PRESETS, recipe_names, recipe_values
from .registry import ENCODERS, METHODS, OPTIMISERS, SPELLERS, plugins
from .reporting import EvaluationSettings
from .run_names import digest, identity
