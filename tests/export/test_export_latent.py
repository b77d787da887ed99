"""Latent losses against formulas and integrals computed elsewhere; Ar0's convolutions and loss."""

import numpy as np
import pytest
import torch
from attpc_export.models.ar0 import Ar0, Ar0Settings
from attpc_export.models.latent import (
    LatentLayer,
    LatentSettings,
    draw_mixture,
    kl_to_normal,
    mixture_means,
    squared_mmd,
)
from attpc_export.models.layers import ConvolutionSettings, pixel_cross_entropy
from scipy.integrate import quad
from scipy.spatial.distance import cdist, pdist
from scipy.stats import norm
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn

CPU = torch.device("cpu")


def test_the_divergence_is_the_integral() -> None:
    means, deviations = [0.0, 0.7, -2.0], [1.0, 0.4, 1.8]
    expected = 0.0
    for mean, deviation in zip(means, deviations, strict=True):
        q = norm(mean, deviation)
        expected += quad(
            lambda x, q=q: q.pdf(x) * (q.logpdf(x) - norm.logpdf(x)), mean - 12, mean + 12
        )[0]
    log_variance = torch.tensor([deviations]).log() * 2
    assert kl_to_normal(torch.tensor([means]), log_variance).item() == pytest.approx(expected)
    assert kl_to_normal(torch.zeros(4, 3), torch.zeros(4, 3)).tolist() == [0.0] * 4


def test_the_discrepancy_is_that_of_scikit_learns_kernel() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(40, 5)), rng.normal(1.0, 2.0, (60, 5))
    gamma = 1 / 5**2
    expected = (
        rbf_kernel(one, gamma=gamma).mean()
        - 2 * rbf_kernel(one, other, gamma=gamma).mean()
        + rbf_kernel(other, gamma=gamma).mean()
    )
    found = squared_mmd(torch.from_numpy(one), torch.from_numpy(other)).item()
    assert found == pytest.approx(expected, rel=1e-6)
    assert squared_mmd(torch.from_numpy(one), torch.from_numpy(one)).item() == pytest.approx(0.0)


def test_the_mixture_is_of_unit_gaussians_that_lie_apart() -> None:
    settings = LatentSettings(size=6, loss="mmd", n_gaussians=3, separation=12.0)
    means = mixture_means(settings).numpy()
    np.testing.assert_allclose(pdist(means), 12.0, rtol=1e-6)
    torch.manual_seed(0)
    sample = draw_mixture(6000, settings, CPU).numpy()
    nearest = cdist(sample, means).argmin(axis=1)
    for number in range(3):
        part = sample[nearest == number]
        assert 1800 < len(part) < 2200
        np.testing.assert_allclose(part.mean(axis=0), means[number], atol=0.1)
        np.testing.assert_allclose(part.std(axis=0), 1.0, atol=0.06)


def test_a_variational_layer_draws_around_its_mean() -> None:
    torch.manual_seed(0)
    layer = LatentLayer(3, LatentSettings(size=2, loss="kl", weight=7.0))
    assert layer.log_variance is not None
    inputs = torch.rand(1, 3).repeat(20_000, 1)
    sample, mean, loss = layer.draw(inputs)
    deviation = torch.exp(0.5 * layer.log_variance(inputs[:1]))
    np.testing.assert_allclose(sample.mean(0).detach(), mean[0].detach(), atol=0.05)
    np.testing.assert_allclose(sample.std(0).detach(), deviation[0].detach(), rtol=0.05)
    expected = 7.0 * kl_to_normal(mean[:1], layer.log_variance(inputs[:1]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    layer.eval()
    assert torch.equal(layer.draw(inputs)[0], layer(inputs))


@pytest.mark.parametrize("kind", ["none", "kl", "mmd"])
def test_the_loss_of_ar0(kind: str) -> None:
    torch.manual_seed(0)
    settings = Ar0Settings(ConvolutionSettings((4, 8), (5, 3)), LatentSettings(6, kind, weight=3.0))
    model = Ar0(settings, (1, 16, 16)).eval()
    images = torch.rand(5, 1, 16, 16)
    torch.manual_seed(1)
    loss, latent = model.loss(images)
    redrawn = model.reconstruct(latent).detach().numpy().astype(np.float64)
    target = images.numpy().astype(np.float64)
    # scikit-learn's log loss of a pixel that is lit with probability `target`
    expected = log_loss(
        np.tile([1, 0], target.size),
        np.repeat(redrawn.ravel(), 2),
        sample_weight=np.stack([target.ravel(), 1 - target.ravel()], 1).ravel(),
        normalize=False,
    ) / len(images)
    torch.manual_seed(1)
    hidden = model.encoder(images).flatten(1)
    if kind == "kl":
        assert model.latent.log_variance is not None
        expected += 3.0 * kl_to_normal(latent, model.latent.log_variance(hidden)).mean().item()
    elif kind == "mmd":
        expected += 3.0 * squared_mmd(draw_mixture(5, settings.latent, CPU), latent).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(latent, model.encode(images))


def test_the_thesis_shapes() -> None:
    full = ConvolutionSettings((16, 16, 16, 16, 32, 32), (11, 11, 11, 11, 5, 3))
    model = Ar0(Ar0Settings(full, LatentSettings(100)), (1, 128, 128))
    convolutions = [layer for layer in model.encoder if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in convolutions] == [11, 11, 11, 11, 5, 3]
    assert model.encoder(torch.rand(2, 1, 128, 128)).shape == (2, 32, 2, 2)
    assert model.reconstruct(model.encode(torch.rand(2, 1, 128, 128))).shape == (2, 1, 128, 128)
    mirrored = [layer for layer in model.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.kernel_size[0] for layer in mirrored] == [3, 5, 11, 11, 11, 11]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_bounded_activations_are_normalised_before_others_after(activation: str) -> None:
    settings = ConvolutionSettings((4, 4), (3, 3), activation)  # type: ignore[arg-type]
    names = [type(layer).__name__ for layer in Ar0(Ar0Settings(settings), (1, 8, 8)).encoder]
    after = names.index("BatchNorm2d") == 2
    assert after == (activation in ("relu", "leaky_relu"))


def test_pixels_beyond_the_scale_have_a_finite_loss() -> None:
    losses = pixel_cross_entropy(torch.full((2, 1, 2, 2), 9.0), torch.full((2, 1, 2, 2), 1.4))
    assert (losses >= 0).all()
