"""Frozen backbones: the same numbers as ONNX Runtime and SciPy give with the same weights."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from attpc_export.cli import main
from attpc_export.models.ar0 import Ar0Settings
from attpc_export.models.ar1 import Ar1Settings
from attpc_export.models.backbone import (
    VGG16_LAYERS,
    Backbone,
    BackboneSettings,
    kept_features,
    with_weights,
)
from attpc_export.models.onnx_graph import OnnxGraph
from numpy.typing import NDArray
from scipy.signal import correlate2d
from torch import nn

from attpc_filter.errors import UsageError
from tests.conftest import SHARED
from tests.export.conftest import Training, train_arguments, write_config

SHAPE = (1, 32, 32)


def made_up_weights() -> dict[str, NDArray[np.float32]]:
    """Made-up weights of VGG16's convolutions, small enough to keep the numbers near 1."""
    rng = np.random.default_rng(1)
    found: dict[str, NDArray[np.float32]] = {}
    channels, number = 3, 0
    for filters in VGG16_LAYERS:
        if filters == "pool":
            number += 1
            continue
        spread = np.sqrt(2.0 / (9 * channels))
        shape = (filters, channels, 3, 3)
        found[f"{number}.weight"] = rng.normal(0.0, spread, shape).astype(np.float32)
        found[f"{number}.bias"] = rng.normal(0.0, 0.1, filters).astype(np.float32)
        channels, number = filters, number + 2
    return found


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[np.float32]]:
    return made_up_weights()


def onnx_vgg16(weights: dict[str, NDArray[np.float32]], path: Path) -> Path:
    """VGG16's convolutions as an ONNX file, made without PyTorch."""
    nodes, name, number = [], "images", 0
    for filters in VGG16_LAYERS:
        if filters == "pool":
            node = onnx.helper.make_node(
                "MaxPool", [name], [f"pool{number}"], kernel_shape=[2, 2], strides=[2, 2]
            )
            nodes.append(node)
            name, number = f"pool{number}", number + 1
            continue
        inputs = [name, f"{number}.weight", f"{number}.bias"]
        nodes.append(onnx.helper.make_node("Conv", inputs, [f"conv{number}"], pads=[1, 1, 1, 1]))
        nodes.append(onnx.helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        name, number = f"relu{number}", number + 2
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "vgg16",
        [onnx.helper.make_tensor_value_info("images", kind, ["n", 3, None, None])],
        [onnx.helper.make_tensor_value_info(name, kind, None)],
        [onnx.numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def run_onnx(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: images})
    found: NDArray[np.float32] = result.reshape(len(images), -1)
    return found


@pytest.mark.parametrize(
    ("name", "order", "mean", "deviation"),
    [
        # Keras' preprocess_input in mode "caffe"; torchvision's Normalize on values 0 to 1
        ("vgg.npz", [2, 1, 0], [103.939, 116.779, 123.68], [1.0, 1.0, 1.0]),
        ("vgg.pth", [0, 1, 2], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_vgg16_reads_each_source_as_it_was_trained(
    weights: dict[str, NDArray[np.float32]],
    tmp_path: Path,
    name: str,
    order: list[int],
    mean: list[float],
    deviation: list[float],
) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, **weights)
    else:  # torchvision's file has the classifier too
        state = {f"features.{key}": torch.from_numpy(value) for key, value in weights.items()}
        torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    images = np.random.default_rng(2).random((3, 3, 32, 32), np.float32)
    expected_input = images[:, order] * (255.0 if name.endswith(".npz") else 1.0)
    expected_input = (expected_input - np.reshape(mean, (3, 1, 1))) / np.reshape(
        deviation, (3, 1, 1)
    )
    expected = run_onnx(onnx_vgg16(weights, tmp_path / "v.onnx"), expected_input.astype(np.float32))
    backbone = Backbone(BackboneSettings(str(path)), (3, 32, 32))
    with torch.no_grad():
        found = backbone(torch.from_numpy(images)).numpy()
    assert backbone.n_features == 512
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_shared_vgg16_gives_the_thesis_representation(tmp_path: Path) -> None:
    path = SHARED / "data" / "backbones" / "vgg16-imagenet-conv-fp16.npz"
    if not path.exists():
        pytest.skip(f"needs VGG16's weights beside the repository: {path}")
    images = np.zeros((1, 1, 128, 128), np.float32)
    images[0, 0, 40:90, 60:64] = 0.8
    backbone = Backbone(BackboneSettings(str(path)), (1, 128, 128))
    with torch.no_grad():
        found = backbone(torch.from_numpy(images)).numpy()
        maps = backbone.layers[:2](images_for_caffe(images))
    assert found.shape == (1, 8192)
    assert 0.6 < (found == 0).mean() < 0.95  # about 80% zeros
    # the first layer by SciPy's correlation
    with np.load(path) as arrays:
        kernel, bias = arrays["0.weight"].astype(np.float64), arrays["0.bias"].astype(np.float64)
    shown = images_for_caffe(images)[0].numpy()
    for number in (0, 17, 63):
        expected = bias[number] + sum(
            correlate2d(shown[channel], kernel[number, channel], "same") for channel in range(3)
        )
        assert np.abs(maps[0, number].numpy() - np.maximum(expected, 0.0)).max() < 1e-2


def images_for_caffe(images: NDArray[np.float32]) -> torch.Tensor:
    grey = torch.from_numpy(images).repeat(1, 3, 1, 1)
    return 255.0 * grey - torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)


class Blocks(nn.Module):
    """What mobile backbones are made of: groups, squeeze and excitation, clipped activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.depthwise = nn.Conv2d(8, 8, 5, 2, 2, groups=8)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.last = nn.Linear(16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.relu6(self.stem(images))
        maps = self.depthwise(maps) + nn.functional.avg_pool2d(maps, 2)
        maps = nn.functional.hardswish(maps * self.squeeze(maps))
        maps = torch.cat([maps, nn.functional.leaky_relu(maps, 0.2)], 1)
        found: torch.Tensor = self.last(maps.mean((2, 3)).flatten(1))
        return found


def test_any_onnx_backbone_gives_what_onnx_runtime_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = Blocks().eval()
    path = tmp_path / "blocks.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the exporter could do were torchvision there
        torch.onnx.export(
            blocks,
            (torch.rand(2, 3, 32, 32),),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    images = np.random.default_rng(3).random((5, 3, 32, 32), np.float32)
    with torch.no_grad():
        found = OnnxGraph(path)(torch.from_numpy(images)).numpy()
    assert np.abs(found - run_onnx(path, images)).max() < 1e-5


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_by_name_is_onnx_runtimes(tmp_path: Path, auto_pad: str) -> None:
    kernel = np.random.default_rng(4).normal(size=(2, 3, 3, 3)).astype(np.float32)
    node = onnx.helper.make_node(
        "Conv", ["images", "kernel"], ["maps"], auto_pad=auto_pad, strides=[2, 2]
    )
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("images", kind, ["n", 3, 8, 11])],
        [onnx.helper.make_tensor_value_info("maps", kind, None)],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, tmp_path / "one.onnx")
    images = np.random.default_rng(5).random((2, 3, 8, 11), np.float32)
    with torch.no_grad():
        found = OnnxGraph(tmp_path / "one.onnx")(torch.from_numpy(images)).flatten(1).numpy()
    assert np.abs(found - run_onnx(tmp_path / "one.onnx", images)).max() < 1e-5


def test_features_are_computed_once(
    weights: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    np.savez(tmp_path / "vgg.npz", **weights)
    backbone = Backbone(BackboneSettings(str(tmp_path / "vgg.npz")), SHAPE)
    images = np.random.default_rng(6).random((3, *SHAPE), np.float32)
    cpu = torch.device("cpu")
    first = kept_features(backbone, images, cpu, tmp_path / "kept")
    files = list((tmp_path / "kept").glob("*/*"))
    assert len(files) == 3
    for file in files:  # what is there is read, not computed
        np.save(file, np.load(file) + 1.0)
    more = np.concatenate([images[::-1], np.zeros((1, *SHAPE), np.float32)])
    again = kept_features(backbone, more, cpu, tmp_path / "kept")
    np.testing.assert_array_equal(again[:3], first[::-1] + 1.0)
    with torch.no_grad():
        np.testing.assert_allclose(again[3:], backbone(torch.from_numpy(more[3:])), rtol=1e-4)
    # other weights are other features
    with torch.no_grad():
        backbone.layers[28].bias += 1.0
    other = kept_features(backbone, images, cpu, tmp_path / "kept")
    assert (other > first).any()
    assert (other < first + 1.0).any()


def test_weights_are_given_as_a_file_or_a_folder(tmp_path: Path) -> None:
    settings, nested = BackboneSettings("a/vgg.npz"), Ar1Settings(BackboneSettings("vgg.npz"))
    assert with_weights(settings, tmp_path / "b.pth").weights == str(tmp_path / "b.pth")
    assert with_weights(settings, tmp_path).weights == str(tmp_path / "vgg.npz")
    assert with_weights(nested, tmp_path).backbone.weights == str(tmp_path / "vgg.npz")
    other = Ar0Settings()
    assert with_weights(other, tmp_path) is other


def test_wrong_weights_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    (tmp_path / "text.onnx").write_text("no graph")
    cases = {
        "none.npz": "No such file",
        "empty.npz": "no weights",
        "other.npz": "not VGG16",
        "text.onnx": "not an ONNX file",
    }
    for name, words in cases.items():
        settings = BackboneSettings(str(tmp_path / name), "caffe")
        with pytest.raises(UsageError, match=words):
            Backbone(settings, SHAPE)
    with pytest.raises(ValueError, match="does not say its own"):
        BackboneSettings("backbone.onnx")
    with pytest.raises(ValueError, match=r"none of \.npz"):
        BackboneSettings("backbone.bin")


@pytest.mark.parametrize("kind", ["backbone", "ar1"])
def test_a_frozen_backbone_is_trained_on_and_exported(
    weights: dict[str, NDArray[np.float32]],
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    # images are given to it in units of 255
    np.savez(tmp_path / "vgg.npz", **weights | {"0.weight": weights["0.weight"] / 255})
    file = {"weights": "vgg.npz"}
    settings = file if kind == "backbone" else {"backbone": file}
    config = write_config(
        tmp_path / "frozen.yaml",
        projection={"size": 32, "views": ["xy"]},
        augment={"vary": False},
        fit={"epochs": 2, "label_weight": 0.0},
    )
    entries = yaml.safe_load(config.read_text()) | {"model": {"kind": kind} | settings}
    config.write_text(yaml.safe_dump(entries))
    more = ["--weights", str(tmp_path), "--cache", str(tmp_path / "cache")]
    out = tmp_path / "run"
    assert main(train_arguments(config, training.data, training.labels, out, *more)) == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*/*.npy")}
    assert len(kept) == 180
    assert (out / "curves.csv").exists() == (kind == "ar1")
    again = [*more, "--seed", "9"]  # another split, the same features
    other = tmp_path / "other"
    assert main(train_arguments(config, training.data, training.labels, other, *again)) == 0
    assert kept == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*/*.npy")}
    assert main(["export", str(out), "--out", str(tmp_path / "frozen.onnx")]) == 0

    entries["augment"]["vary"] = True
    config.write_text(yaml.safe_dump(entries))
    capsys.readouterr()
    third = train_arguments(config, training.data, training.labels, tmp_path / "third", *more)
    assert main(third) == 2
    assert "augment.vary" in capsys.readouterr().err
