"""DCEC on handwritten digits, as it was published, beside what it starts from.

    python benchmarks/accuracy/dcec_digits.py [--seeds 1 2 3] [--out FILE.csv]

On scikit-learn's 1,797 digits of 8 x 8 pixels, without labels. Accuracy (classes, clusters paired
one to one) and adjusted Rand index of k-means on the pixels, of k-means on the latent of the
autoencoder alone, and of DCEC after it. Guo et al. 2017 report accuracies of 0.53, 0.85 and 0.89 on
MNIST's 70,000 digits.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from attpc_export.config import FitSettings
from attpc_export.judging.compare import cluster_accuracy
from attpc_export.models.dcec import Dcec, DcecSettings
from attpc_export.models.layers import ConvolutionSettings
from attpc_export.training.fit import TrainingModel, fit
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

SETTINGS = DcecSettings(
    ConvolutionSettings((32, 64), (5, 3), "relu", False),
    latent_size=10,
    n_clusters=10,
    pretraining_epochs=60,
    target_epochs=5,
    cluster_weight=0.1,
)
FIT = FitSettings(
    epochs=160,
    patience=160,
    batch_size=64,
    learning_rate=2e-3,
    weight_decay=0.0,
    reconstruction_weight=1.0,
    label_weight=0.0,
    average_decay=0.0,
)


def main() -> None:
    """Run the comparison and write a line a method and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    rows = []
    for seed in options.seeds:
        for method, cluster in run(images, seed).items():
            accuracy = cluster_accuracy(cluster, digits.target)
            rand = adjusted_rand_score(digits.target, cluster)
            rows.append((method, seed, f"{accuracy:.4f}", f"{rand:.4f}"))
            print(*rows[-1], flush=True)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("method", "seed", "accuracy", "ari"))
            writer.writerows(rows)


def run(images: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Clusters by each method."""
    torch.manual_seed(seed)
    unlabelled = np.full(len(images), -1)
    model = Dcec(SETTINGS, images.shape[1:])
    found = {"k-means on pixels": kmeans(images.reshape(len(images), -1), seed)}

    def draw(epoch: int) -> tuple[tuple[np.ndarray], np.ndarray]:
        return (images,), unlabelled

    start_epoch = model.start_epoch

    def watched(epoch: int, inputs: tuple[np.ndarray, ...], device: torch.device) -> bool:
        if epoch == SETTINGS.pretraining_epochs:
            found["autoencoder, then k-means"] = kmeans(encode(model, images), seed)
        return start_epoch(epoch, inputs, device)

    model.start_epoch = watched
    training_model = TrainingModel(model, 2, FIT)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            training_model,
            draw,
            ((images,), np.zeros(len(images), np.int64)),
            seed,
            CPU,
            Path(folder),
        )
    model.eval()
    with torch.no_grad():
        assigned = model.assign(torch.from_numpy(encode(model, images))).argmax(1).numpy()
    return found | {"DCEC": assigned}


def encode(model: Dcec, images: np.ndarray) -> np.ndarray:
    """Latents of the images."""
    model.eval()
    with torch.no_grad():
        return model.encode(torch.from_numpy(images)).numpy()


def kmeans(points: np.ndarray, seed: int) -> np.ndarray:
    """Clusters of k-means."""
    return KMeans(10, n_init=20, random_state=seed).fit_predict(points)


CPU = torch.device("cpu")

if __name__ == "__main__":
    main()
