"""Frozen backbones: convolutions that were trained on photographs, and how their input is made.

Their weights come from a file: the convolutions of VGG16 as an ``.npz`` (Oxford's, as Keras
distributes them) or as torchvision's ``.pth``, or any convolutional backbone as ONNX. Each source
keeps the input that it was trained with.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attpc_export.models.base import LatentModel
from attpc_export.models.onnx_graph import OnnxGraph
from attpc_filter.errors import UsageError
from attpc_filter.output.staging import Staging

Convention = Literal["file", "caffe", "torchvision", "lite"]

#: Filters of VGG16's convolutions; "pool" halves the image (Simonyan and Zisserman 2014).
VGG16_LAYERS: tuple[int | Literal["pool"], ...] = (
    *(64, 64, "pool"),
    *(128, 128, "pool"),
    *(256, 256, 256, "pool"),
    *(512, 512, 512, "pool"),
    *(512, 512, 512, "pool"),
)

#: Colour order, and mean and standard deviation of each colour in that order, for values 0 to 255.
_CONVENTIONS = {
    # Oxford's networks, as Caffe read pictures
    "caffe": ("bgr", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    # torchvision's models: 0 to 1, normalised with ImageNet's moments
    "torchvision": ("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # EfficientNet-Lite, made for integers
    "lite": ("rgb", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
_KIND_OF_SUFFIX = {".npz": "caffe", ".pth": "torchvision", ".onnx": "file"}
_EVENTS_A_BATCH = 16


@dataclass(frozen=True, slots=True)
class BackboneSettings:
    """A frozen backbone.

    Attributes
    ----------
    weights : str
        File with its weights: VGG16's convolutions as ``.npz`` or as torchvision's ``.pth``, or any
        convolutional backbone as ``.onnx``.
    convention : {"file", "caffe", "torchvision", "lite"}
        What it reads. ``file``: what the kind of file says (``.npz``: caffe, ``.pth``:
        torchvision); an ``.onnx`` does not say.
    pooled : bool
        Average each of its last maps over the image, instead of taking all their pixels.
    trained : bool
        Train it further with the labels, end to end: it is frozen no longer.
    """

    weights: str = "vgg16-imagenet-conv-fp16.npz"
    convention: Convention = "file"
    pooled: bool = False
    trained: bool = False

    def __post_init__(self) -> None:
        suffix = Path(self.weights).suffix
        if suffix not in _KIND_OF_SUFFIX:
            raise ValueError(f"weights: {self.weights} is none of .npz, .pth, .onnx")
        if suffix == ".onnx" and self.convention == "file":
            names = ", ".join(_CONVENTIONS)
            raise ValueError(f"convention: an ONNX file does not say its own; choose from {names}")


class Backbone(nn.Module):
    """Projections to the features of a pre-trained network.

    Parameters
    ----------
    settings : BackboneSettings
        Which one.
    image_shape : tuple of int
        (channels, rows, columns) of a projection; one channel is shown as grey, three as colours.

    Attributes
    ----------
    n_features : int
        Numbers that come out for an event.

    Raises
    ------
    UsageError
        If the file cannot be read or holds something else.
    """

    def __init__(self, settings: BackboneSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if image_shape[0] not in (1, 3):
            raise ValueError(f"a backbone reads 1 or 3 views, not {image_shape[0]}")
        path = Path(settings.weights)
        self.layers = _load_layers(path)
        name = settings.convention
        convention = _KIND_OF_SUFFIX[path.suffix] if name == "file" else name
        order, mean, deviation = _CONVENTIONS[convention]
        self.reverse = order == "bgr" and image_shape[0] == 3
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, 3, 1, 1))
        self.pooled = settings.pooled
        for parameter in self.parameters():
            parameter.requires_grad_(settings.trained)
        self.eval()
        with torch.no_grad():
            self.n_features = int(self(torch.zeros(1, *image_shape)).shape[1])

    mean: Tensor
    deviation: Tensor

    def extra_repr(self) -> str:
        """What decides about the features besides layers and weights."""
        return f"pooled={self.pooled}, reverse={self.reverse}"

    def forward(self, images: Tensor) -> Tensor:
        """Features, shape (n_events, n_features), of projections."""
        colours = images.flip(1) if self.reverse else images
        maps: Tensor = self.layers((colours * 255.0 - self.mean) / self.deviation)
        if maps.ndim == 4 and self.pooled:
            maps = maps.mean((2, 3))
        return maps.flatten(1)


class BackboneModel(LatentModel):
    """A backbone whose features are the latent: frozen, or trained further with the labels.

    Parameters
    ----------
    settings : BackboneSettings
        Which backbone.
    image_shape : tuple of int
        (channels, rows, columns) of a projection.
    """

    def __init__(self, settings: BackboneSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.backbone = Backbone(settings, image_shape)
        self.trained = settings.trained
        self.latent_size = self.backbone.n_features

    def frozen_part(self) -> nn.Module | None:
        """The backbone if it is frozen (see :meth:`LatentModel.frozen_part`)."""
        return None if self.trained else self.backbone

    def encode(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Features of the backbone (see :meth:`LatentModel.encode`)."""
        latent: Tensor = self.backbone(images) if features is None else features
        return latent

    def loss(self, images: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """0: but for labels there is nothing to learn (see :meth:`LatentModel.loss`)."""
        return images.new_zeros(()), self.encode(images, features)


def with_weights(settings: Any, weights: Path) -> Any:
    """Copy a model's settings with another file of weights, if it has a backbone.

    Parameters
    ----------
    settings : dataclass
        Settings of any model.
    weights : Path
        The file, or the folder of a file of the same name.
    """
    if isinstance(settings, BackboneSettings):
        file = weights / Path(settings.weights).name if weights.is_dir() else weights
        return replace(settings, weights=str(file))
    if hasattr(settings, "backbone"):
        return replace(settings, backbone=with_weights(settings.backbone, weights))
    return settings


def kept_features(
    part: nn.Module, images: NDArray[np.float32], device: torch.device, folder: Path
) -> NDArray[np.float32]:
    """Compute the features of a model's frozen part, or read them if they were computed before.

    Parameters
    ----------
    part : Module
        The frozen part.
    images : ndarray of float32, shape (n_events, channels, size, size)
        Projections.
    device : torch.device
        Where to compute.
    folder : Path
        Where the features are kept: a file an event, under a name made of the image, in a folder
        under a name made of the weights.

    Returns
    -------
    ndarray of float32, shape (n_events, n_features)
    """
    digest = hashlib.sha256(str(part).encode())
    for name, value in sorted(part.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    folder = folder / f"features-{digest.hexdigest()[:16]}"
    paths = [folder / f"{hashlib.sha256(image.tobytes()).hexdigest()[:32]}.npy" for image in images]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    part = part.to(device).eval()
    batches = range(0, len(missing), _EVENTS_A_BATCH)
    for start in tqdm(batches, desc="backbone", leave=False, disable=None):
        rows = missing[start : start + _EVENTS_A_BATCH]
        with torch.no_grad():
            features = part(torch.from_numpy(images[rows]).to(device)).cpu().numpy()
        with Staging() as staging:
            for row, found in zip(rows, features, strict=True):
                with staging.path(paths[row]).open("wb") as file:
                    np.save(file, found)
            staging.commit()
    return np.stack([np.load(path) for path in paths])


def _load_layers(path: Path) -> nn.Module:
    try:
        if path.suffix == ".onnx":
            return OnnxGraph(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays}
        else:
            loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            weights = {
                name.removeprefix("features."): value.float()
                for name, value in loaded.items()
                if name.startswith("features.")
            }
    except OSError as error:
        raise UsageError(
            f"model.weights: {path}: {error.strerror or error}; give the file of the backbone's"
            " weights, in the configuration or with --weights"
        ) from error
    except Exception as error:  # zipfile, pickle and torch have errors of their own
        raise UsageError(f"model.weights: {path}: no weights can be read: {error}") from error
    layers = _vgg16()
    try:
        layers.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"model.weights: {path}: not VGG16's convolutions: {error}") from error
    return layers


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for filters in VGG16_LAYERS:
        if filters == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, filters, 3, 1, 1), nn.ReLU()]
            channels = filters
    return nn.Sequential(*layers)
