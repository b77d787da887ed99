"""The thesis' models against formulas computed elsewhere, and each one's bundle against PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attpc_export.models.ar0 import Ar0Settings
from attpc_export.models.ar1 import Ar1Settings
from attpc_export.models.autoencoder import AutoencoderSettings
from attpc_export.models.backbone import BackboneSettings
from attpc_export.models.dcec import Dcec, DcecSettings, sharpened
from attpc_export.models.draw import (
    AttentionReader,
    AttentionWriter,
    Draw,
    DrawSettings,
    filter_bank,
)
from attpc_export.models.duelling import (
    Duelling,
    DuellingSettings,
    HoughTransform,
    charge_histogram,
    net_charge,
)
from attpc_export.models.latent import LatentSettings
from attpc_export.models.layers import ConvolutionSettings
from attpc_export.models.mixae import Mixae, MixaeSettings, entropy
from attpc_export.models.registry import MODELS, build_model
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from attpc_filter.errors import UsageError

SHAPE = (1, 16, 16)
CPU = torch.device("cpu")
CONVOLUTIONS = ConvolutionSettings((4, 8), (5, 3))
BARE = ConvolutionSettings((4, 8), (3, 3), normalise=False)


def blobs(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Images of three kinds that any clustering tells apart: a bar across, one up, a square."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, *SHAPE), np.float32)
    for number, image in enumerate(images[:, 0]):
        if number % 3 == 2:
            rows, columns = slice(9, 15), slice(2, 8)
        elif number % 3 == 1:
            rows, columns = slice(1, 15), slice(12, 14)
        else:
            rows, columns = slice(2, 4), slice(1, 15)
        image[rows, columns] = rng.uniform(0.6, 0.9)
    return images


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    return make_tiny(tmp_path_factory)


def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Small settings of each model, by name."""
    from tests.export.test_export_backbone import made_up_weights

    path = tmp_path_factory.mktemp("weights") / "vgg.npz"
    np.savez(path, **made_up_weights())
    attention = DrawSettings(2, "attention", CONVOLUTIONS, 3, 4, 1.0, 32, 32, _size(3))
    return {
        "autoencoder": AutoencoderSettings((4, 8), (0, 0), (3, 3), (8, 4), 6),
        "ar0": Ar0Settings(CONVOLUTIONS, _size(6)),
        "vae": Ar0Settings(CONVOLUTIONS, LatentSettings(6, "kl")),
        "ar1": Ar1Settings(BackboneSettings(str(path)), (8,), CONVOLUTIONS, _size(6)),
        "backbone": BackboneSettings(str(path)),
        "dcec": DcecSettings(BARE, 4, 3, 1, 1),
        "draw": DrawSettings(2, "convolution", CONVOLUTIONS, latent=_size(3)),
        "draw, attention": attention,
        "duelling": DuellingSettings(CONVOLUTIONS, _size(6), "hough"),
        "mixae": MixaeSettings(2, BARE, 4),
    }.__getitem__


def _size(size: int) -> LatentSettings:
    return LatentSettings(size)


KINDS = ["autoencoder", "ar0", "vae", "ar1", "backbone", "dcec", "draw", "draw, attention"]
KINDS += ["duelling", "mixae"]


def test_every_model_is_tested(tiny: Callable[[str], Any]) -> None:
    # those that read hits have a file of their own
    reads_images = {settings for settings, model in MODELS.values() if not model.reads_points}
    assert reads_images <= {type(tiny(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "backbone"])
def test_a_model_learns_to_redraw(tiny: Callable[[str], Any], kind: str) -> None:
    torch.manual_seed(0)
    shape = (1, 32, 32) if kind == "ar1" else SHAPE
    images = torch.from_numpy(blobs(24))
    if kind == "ar1":
        images = torch.nn.functional.interpolate(images, size=32)
    model = build_model(tiny(kind), shape)
    part = model.frozen_part()
    with torch.no_grad():
        inputs = (images,) if part is None else (images, part(images))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)

    def error() -> float:
        model.eval()
        with torch.no_grad():
            return float((model.reconstruct(model.encode(*inputs)) - images).square().mean())

    before = error()
    for _ in range(60):
        model.train()
        optimizer.zero_grad()
        loss, latent = model.loss(*inputs)
        loss.backward()
        optimizer.step()
    assert error() < 0.5 * before
    assert latent.shape == (24, model.latent_size)
    with torch.no_grad():  # what a bundle runs, from images alone
        torch.testing.assert_close(
            model.encode(images), model.encode(*inputs), rtol=1e-4, atol=1e-4
        )


# Second decoders


def test_the_charge_histogram_is_numpys() -> None:
    images = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    images[images < 0.4] = 0.0
    images[3] = 0.0
    found = charge_histogram(torch.from_numpy(images), 40).numpy()
    for image, row in zip(images[:3], found[:3], strict=True):
        expected, _ = np.histogram(image[image > 0], 40, (0.0, 1.0))
        np.testing.assert_allclose(row, expected / (image > 0).sum(), atol=1e-6)
    assert (found[3] == 0).all()
    assert charge_histogram(torch.full((1, 1, 2, 2), 1.3), 5).tolist() == [[0, 0, 0, 0, 1]]


def test_the_net_charge() -> None:
    images = np.random.default_rng(0).random((4, 2, 8, 8), np.float32)
    np.testing.assert_allclose(
        net_charge(torch.from_numpy(images)), np.log(1 + images.sum((1, 2, 3))), rtol=1e-5
    )


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize(("angle", "distance"), [(0.0, 0.5), (0.75, -0.3), (1.9, 0.2), (3.0, 0.0)])
def test_a_straight_track_is_one_bright_spot(size: int, angle: float, distance: float) -> None:
    t = np.linspace(-1.5, 1.5, 4000)
    x = distance * np.cos(angle) - t * np.sin(angle)
    y = distance * np.sin(angle) + t * np.cos(angle)
    inside = (np.abs(x) < 1) & (np.abs(y) < 1)
    column, row = (((c[inside] + 1) / 2 * size).astype(int) for c in (x, y))
    image = np.zeros((1, 1, size, size), np.float32)
    image[0, 0, row, column] = 1.0
    found = HoughTransform(size)(torch.from_numpy(image))[0].numpy()
    assert found.shape == (32, 33)
    assert found.max() == pytest.approx(1.0)
    k, d = np.unravel_index(found.argmax(), found.shape)
    turn = (k * np.pi / 32 - angle + np.pi / 2) % np.pi - np.pi / 2
    assert abs(turn) < 2.5 * np.pi / 32
    sign = np.sign(np.cos(k * np.pi / 32 - angle))
    centre = ((d + 0.5) / 33 * 2 - 1) * 1.5
    assert abs(centre - sign * distance) < 2.5 * 3 / 33


def test_the_hough_transform_of_an_image_is_a_histogram_an_angle() -> None:
    image = np.random.default_rng(1).random((16, 16)).astype(np.float32)
    found = HoughTransform(16)(torch.from_numpy(image)[None, None])[0].numpy()
    centre = (np.arange(16) + 0.5) / 8 - 1
    x, y = np.meshgrid(centre, centre)
    expected = np.array(
        [
            np.histogram(x * np.cos(a) + y * np.sin(a), 33, (-1.5, 1.5), weights=image)[0]
            for a in np.arange(32) * np.pi / 32
        ]
    )
    expected /= expected.max()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_second_decoder_adds_its_loss() -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(blobs(6))
    for second in ("histogram", "net_charge", "hough"):
        settings = DuellingSettings(CONVOLUTIONS, _size(6), second, 7.0)
        model = Duelling(settings, SHAPE).eval()
        both, latent = model.loss(images)
        alone, _ = super(Duelling, model).loss(images)
        drawn = model.second(latent).detach().numpy().astype(np.float64)
        if second == "histogram":
            wanted = charge_histogram(images, 40).numpy()
            log_share = drawn - np.log(np.exp(drawn).sum(1, keepdims=True))
            expected = -(wanted * log_share).sum(1).mean()
        elif second == "net_charge":
            expected = ((drawn[:, 0] - net_charge(images).numpy()) ** 2).mean()
        else:
            assert model.hough is not None
            wanted = model.hough(images).flatten(1).numpy()
            share = 1 / (1 + np.exp(-drawn))
            expected = -(wanted * np.log(share) + (1 - wanted) * np.log(1 - share)).sum(1).mean()
        assert (both - alone).item() == pytest.approx(7.0 * expected, rel=1e-4)


# DRAW


def test_the_filters_are_normalised_gaussians() -> None:
    centre, deviation, n, stride, size = 9.3, 1.7, 5, 0.8, 20
    bank = filter_bank(torch.tensor([[centre]]), torch.tensor([[deviation**2]]), n, stride, size)[
        0
    ].numpy()
    pixels = np.arange(1, size + 1)
    for number, row in enumerate(bank):
        expected = stats.norm(centre + (number - (n - 1) / 2) * stride, deviation).pdf(pixels)
        np.testing.assert_allclose(row, expected / expected.sum(), atol=1e-6)
    # a glimpse off the image reads nothing, and no number is lost
    off = filter_bank(torch.tensor([[-400.0]]), torch.tensor([[1e-9]]), n, stride, size)
    assert torch.isfinite(off).all()
    assert (off == 0).all()


def test_reading_and_painting_are_sums_over_pixels() -> None:
    torch.manual_seed(0)
    settings = DrawSettings(reading="attention", read_filters=3, write_filters=4, decoder_size=5)
    reader, writer = AttentionReader(settings, SHAPE), AttentionWriter(settings, SHAPE)
    images, error, state = torch.rand(2, *SHAPE), torch.rand(2, *SHAPE), torch.rand(2, 5)
    with torch.no_grad():
        across, up, intensity = (part.numpy() for part in reader.window(state))
        glimpse = reader(images, error, state).numpy().reshape(2, 2, 3, 3)
        w_across, w_up, w_intensity = (part.numpy() for part in writer.window(state))
        patch = writer.dense(state).numpy().reshape(2, 4, 4)
        painted = writer(state).numpy()
    for event in range(2):
        for number, picture in enumerate((images, error)):
            expected = np.einsum(
                "ih,jw,hw->ij", up[event], across[event], picture[event, 0].numpy()
            )
            np.testing.assert_allclose(
                glimpse[event, number], intensity[event] * expected, rtol=1e-4
            )
        expected = np.einsum("ih,jw,ij->hw", w_up[event], w_across[event], patch[event])
        np.testing.assert_allclose(
            painted[event, 0], w_intensity[event] * expected, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("reading", ["attention", "convolution"])
def test_the_decoder_alone_paints_what_the_recurrence_painted(reading: Any) -> None:
    torch.manual_seed(0)
    settings = DrawSettings(3, reading, CONVOLUTIONS, 3, 4, latent=_size(5))
    model = Draw(settings, SHAPE).eval()
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        canvas, latent, _ = model._paint(images, random=False)
        torch.testing.assert_close(model.reconstruct(latent), torch.sigmoid(canvas))
    assert latent.shape == (4, 15)
    assert not torch.equal(latent[:, :5], latent[:, 5:10])


def test_every_step_has_its_latent_loss() -> None:
    torch.manual_seed(0)
    settings = DrawSettings(3, "convolution", CONVOLUTIONS, latent=LatentSettings(5, "kl", 2.0))
    model = Draw(settings, SHAPE).eval()
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        total = model._paint(images, random=True)[2].item()
    seen: list[float] = []
    layer = model.latent
    draw = layer.draw
    layer.draw = lambda x: (seen.append(draw(x)[2].item()), draw(x))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        model._paint(images, random=True)
    assert len(seen) == 3
    assert total == pytest.approx(sum(seen), rel=1e-5)


# DCEC


def test_assignments_are_students() -> None:
    rng = np.random.default_rng(0)
    model = Dcec(DcecSettings(BARE, 4, 3), SHAPE)
    latent = rng.normal(size=(10, 4)).astype(np.float32)
    centroids = model.student.centroids.detach().numpy()
    distance = np.linalg.norm(latent[:, None] - centroids, axis=2)
    expected = stats.t(df=1).pdf(distance)
    expected /= expected.sum(1, keepdims=True)
    found = model.assign(torch.from_numpy(latent)).exp().detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_target_is_the_published_one() -> None:
    q = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    expected = np.zeros_like(q)
    for i in range(20):
        row = [q[i, j] ** 2 / sum(q[k, j] for k in range(20)) for j in range(3)]
        expected[i] = np.array(row) / sum(row)
    found = sharpened(torch.from_numpy(q), torch.from_numpy(q.sum(0))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_dcec_starts_from_k_means_and_keeps_its_target() -> None:
    torch.manual_seed(0)
    images = blobs(60)
    model = Dcec(DcecSettings(BARE, 4, 3, pretraining_epochs=2, target_epochs=3), SHAPE).eval()
    with torch.no_grad():
        before, latent = model.loss(torch.from_numpy(images))
    error = (model.reconstruct(latent) - torch.from_numpy(images)).square().mean()
    assert before.item() == pytest.approx(error.item(), rel=1e-5)
    assert [model.start_epoch(epoch, (images,), CPU) for epoch in range(3)] == [False, False, True]
    found = model.assign(latent).argmax(1).numpy()
    expected = KMeans(3, n_init=20, random_state=0).fit_predict(latent.numpy())
    assert adjusted_rand_score(expected, found) == 1.0
    after, _ = model.loss(torch.from_numpy(images))
    q = model.assign(latent).exp().detach().numpy().astype(np.float64)
    p = sharpened(torch.from_numpy(q), torch.from_numpy(q.sum(0))).numpy()
    divergence = stats.entropy(p, q, axis=1).mean()
    assert after.item() == pytest.approx(error.item() + 0.1 * divergence, rel=1e-4)
    # the student moves, the target stays until it is renewed
    with torch.no_grad():
        model.student.centroids += 1.0
    assert not model.start_epoch(3, (images,), CPU)
    assert not torch.equal(model.teacher.centroids, model.student.centroids)
    assert not model.start_epoch(5, (images,), CPU)
    assert torch.equal(model.teacher.centroids, model.student.centroids)
    assert not model.train().teacher.training


# MIXAE


def test_entropies_are_scipys() -> None:
    share = np.random.default_rng(0).dirichlet([1, 1, 1, 1], 6)
    np.testing.assert_allclose(entropy(torch.from_numpy(share)), stats.entropy(share, axis=1))
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0.0


def test_the_loss_of_the_mixture() -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(blobs(7))
    model = Mixae(MixaeSettings(3, BARE, 4, theta=5.0, alpha=0.3, gamma=11.0), SHAPE).eval()
    with torch.no_grad():
        loss, latent = model.loss(images)
        share = model.assign(latent).exp().numpy().astype(np.float64)
        drawn = [
            torch.sigmoid(decoder(latent[:, 4 * j : 4 * j + 4])).numpy().astype(np.float64)
            for j, decoder in enumerate(model.decoders)
        ]
    target = images.numpy()
    total = 0.0
    for i in range(7):
        for j in range(3):
            x = drawn[j][i]
            cost = -(target[i] * np.log(x) + (1 - target[i]) * np.log(1 - x)).mean()
            total += 256 / 5.0 * share[i, j] * cost / 7
        total += 0.3 * stats.entropy(share[i]) / 7
    total += 11.0 / stats.entropy(share.mean(0))
    assert loss.item() == pytest.approx(total, rel=1e-5)

    # all events in one cluster: the loss is finite and leads out of it
    torch.nn.init.zeros_(model.assignment[-1].weight)
    model.assignment[-1].bias.data = torch.tensor([10.0, 0.0, 0.0])
    loss, _ = model.loss(images)
    loss.backward()
    slope = model.assignment[-1].bias.grad
    assert slope is not None
    assert loss.isfinite()
    assert slope[0] > 0 > max(slope[1], slope[2])


def test_mixae_can_start_from_k_means() -> None:
    torch.manual_seed(0)
    images = blobs(60)
    model = Mixae(MixaeSettings(3, BARE, 4, pretraining_epochs=1), SHAPE).eval()
    assert [model.start_epoch(epoch, (images,), CPU) for epoch in range(3)] == [False, True, False]
    with torch.no_grad():
        latent = model.encode(torch.from_numpy(images))
        found = model.assign(latent).argmax(1).numpy()
    scaled = StandardScaler().fit_transform(latent.numpy())
    expected = KMeans(3, n_init=20, random_state=0).fit_predict(scaled)
    assert adjusted_rand_score(expected, found) == 1.0
    assert model.apart == 1.0
    never = Mixae(MixaeSettings(3, BARE, 4), SHAPE)
    assert not any(never.start_epoch(epoch, (images,), CPU) for epoch in range(3))
    assert never.apart == 1.0


def test_a_model_without_clusters_or_decoder_says_so(
    tiny: Callable[[str], Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no clusters of its own"):
        build_model(tiny("ar0"), SHAPE).assign(torch.zeros(1, 6))
    with pytest.raises(UsageError, match="no decoder"):
        build_model(tiny("backbone"), (1, 32, 32)).reconstruct(torch.zeros(1, 512))
