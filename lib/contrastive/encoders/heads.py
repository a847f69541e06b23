"""Projection heads: features h -> projections z, where a loss is taken. They are thrown away after pretraining."""

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


def normalised_mlp(in_features: int, hidden: int, out_features: int) -> nn.Module:
    """Linear, BatchNorm, ReLU, Linear: the projector and the predictor of BYOL (2006.07733, section 3.3)."""
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out_features),
    )
