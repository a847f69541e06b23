"""Projection heads: features h -> projections z, where a loss is taken. They are thrown away after pretraining."""

from itertools import pairwise

from torch import nn

HEADS = ("mlp", "linear", "none")


def projection_head(kind: str, in_features: int, out_features: int) -> nn.Module:
    """`mlp`: Linear, ReLU, Linear (2002.05709, section 2.1) with `2 * out_features` hidden units; `linear`; `none`."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(in_features, out_features)
    hidden = 2 * out_features
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features))


def normalised_mlp(*widths: int, last: bool = False) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them, as the projectors and predictors of most methods have it.

    Args:
        widths: of the input, of each hidden layer and of the output.
        last: whether the output is normalised, too, by a BatchNorm without parameters.
    """
    layers: list[nn.Module] = []
    for before, hidden in pairwise(widths[:-1]):
        layers += [nn.Linear(before, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not last))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last else []))
