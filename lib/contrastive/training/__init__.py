"""Training: the loop, its state and checkpoints, optimisers, devices, and runs that are kept in folders.

`pretrain(settings)` trains, resumes or loads a run; `load_encoder(run)` gives its frozen encoder.
"""

from .loop import begin_epoch, check_fits, initial_method, parameter_count, start, train
from .requests import check_evaluation, check_report, check_validation, n_labels_beside_validation, transfer_images
from .resolution import FITTED, SHRINKING, resolve
from .runs import Run, load_encoder, load_method, pretrain, run_folder, untrained_method
