"""`python -m benchmarks.seen`: what it is worth that an image was seen, without its label, in pretraining.

Under cross-validation, held-out images may be among those that the encoder was pretrained on; images to come will not
be. With the published encoders of MNIST: linear probes are fitted to labels of some of the pretrained images, and
judged on the other ones, and on as many training images that the encoder never saw.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from contrastive import load_encoder, load_images
from contrastive.data import split
from contrastive.data.folding import LEAST_TO_CHOOSE
from contrastive.evaluation.probes import embed, fit_probe
from contrastive.evaluation.statistics import interval
from contrastive.storage.files import atomic_write

ENCODERS = Path(__file__).parent.parent / "reports" / "published" / "mnist-digits" / "encoders"
N_LABELS, DRAWS, JUDGED = (60, 200, 1000), 20, 3500


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seen", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    images, found = load_images("mnist"), dict[int, list[list[float]]]()
    for seed, folder in enumerate(sorted(ENCODERS.iterdir())):
        encoder = load_encoder(folder)
        splits = split(images, 5000, seed)
        rng = np.random.default_rng([seed, 0x5EE4])
        unseen = np.setdiff1d(np.arange(len(images.train)), splits.pretrain.numpy())
        seen = embed(encoder, images.train[splits.pretrain]), images.train_labels[splits.pretrain]
        others = torch.from_numpy(rng.permutation(unseen)[:JUDGED])
        fresh = embed(encoder, images.train[others]), images.train_labels[others]
        for n in N_LABELS:
            differences = []
            for _ in range(DRAWS):
                order = torch.from_numpy(rng.permutation(len(seen[0])))
                labelled, judged = order[:n], order[n : n + JUDGED]
                fifth = n // 5 if n >= LEAST_TO_CHOOSE else 0
                fit, choose = ((seen[0][at], seen[1][at]) for at in (labelled[fifth:], labelled[:fifth]))
                probe = fit_probe(fit, choose, len(images.classes))
                differences.append(probe.accuracy(seen[0][judged], seen[1][judged]) - probe.accuracy(*fresh))
            found.setdefault(n, []).append(differences)
            print(f"encoder {seed}, {n} labels: {np.mean(differences):+.2f} points", flush=True)
    rows = []
    for n, of_encoders in found.items():
        own = interval(np.array(of_encoders).mean(1)[None], bounded=False)  # encoders are the sample
        rows.append({"labels": n, "points": own.mean, "low": own.low, "high": own.high})
        print(f"{n} labels: seen images {own.mean:+.2f} points (95 %: {own.low:+.2f} to {own.high:+.2f})")
    if args.out:
        atomic_write(args.out, (json.dumps(rows, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
