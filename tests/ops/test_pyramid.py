"""The energy pyramid, against patterns whose energy is known."""

import math

import pytest
import torch

from neuroformer.ops.energy import EnergyPyramid

SIZE = (8, 32, 48)


def grating(wavelength, angle, frequency=0.0, phase=0.0, size=SIZE):
    """(1, F, H, W) that drifts along ``angle``."""
    frames, height, width = size
    t, y, x = torch.arange(frames)[:, None, None], torch.arange(height)[:, None], torch.arange(width)
    along = x * math.cos(angle) + y * math.sin(angle)
    return torch.cos(2 * math.pi * (along / wavelength - frequency * t) + phase)[None].double()


@pytest.fixture(scope="module")
def pyramid():
    return EnergyPyramid(*SIZE)


@pytest.mark.parametrize("wavelength", [4.0, 8.0, 16.0])
@pytest.mark.parametrize("angle", [0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4])
@pytest.mark.parametrize("frequency", [0.125, -0.25])
def test_a_drifting_grating_excites_the_filter_of_its_own_kind(pyramid, wavelength, angle, frequency):
    seen = pyramid(grating(wavelength, angle, frequency))[0, -1].mean((0, 1))
    moving = [(i, f) for i, f in enumerate(pyramid.features) if f.kind == "energy" and f.wavelength and f.frequency]
    _, best = max(moving, key=lambda x: seen[x[0]])
    assert (best.wavelength, best.frequency) == (wavelength, frequency)
    assert best.orientation == pytest.approx(angle)


def test_energy_does_not_depend_on_phase_and_the_pair_does(pyramid):
    place = pyramid.grid[1] // 2, pyramid.grid[2] // 2
    seen = torch.stack([pyramid(grating(8.0, 0.0, phase=p))[0, -1][place] for p in [i * math.pi / 4 for i in range(8)]])
    of = {(f.kind, f.wavelength, f.orientation, f.frequency): i for i, f in enumerate(pyramid.features)}
    energy = seen[:, of["energy", 8.0, 0.0, 0.0]]
    torch.testing.assert_close(energy, energy.mean().expand(8), rtol=0.03, atol=0)
    even, odd = seen[:, of["even", 8.0, 0.0, 0.0]], seen[:, of["odd", 8.0, 0.0, 0.0]]
    assert even.min() < -0.9 * energy.mean() and odd.max() > 0.9 * energy.mean()
    torch.testing.assert_close(torch.hypot(even, odd), energy, rtol=1e-4, atol=1e-6)


def test_normalisation_keeps_the_pattern_and_not_its_contrast(pyramid):
    weak, strong = (pyramid(c * grating(8.0, 0.0))[0, -1, 4, 6] for c in (1.0, 3.0))
    energies = [i for i, f in enumerate(pyramid.features) if f.kind == "energy" and f.wavelength and not f.frequency]
    ratio = (strong[energies] / weak[energies])[weak[energies] > 0.1]
    assert len(ratio) > 2 and ratio.min() > 1 and ratio.max() < 1.5  # at three times the contrast
    assert pyramid.features[-1].kind == "contrast" and strong[-1] - weak[-1] > 0.7


def test_no_frame_sees_a_later_one(pyramid):
    x = torch.randn(1, *SIZE)
    changed = x.clone()
    changed[:, 5:] = torch.randn(1, 3, *SIZE[1:])
    torch.testing.assert_close(pyramid(x)[:, :5], pyramid(changed)[:, :5])
    assert not torch.allclose(pyramid(x)[:, 5], pyramid(changed)[:, 5])


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (9, 1, 1), (1, 20, 20), (3, 1, 40), (2, 64, 112), (1, 300, 520), (4, 3, 5)]
)
def test_frames_of_any_size(size):
    pyramid = EnergyPyramid(*size)
    x = torch.randn(2, *size)
    seen = pyramid(x)
    assert seen.shape == (2, *pyramid.grid, len(pyramid.features)) and seen.isfinite().all()
    assert pyramid.grid[0] == size[0] and max(pyramid.grid[1:]) <= 16
    assert len(set(pyramid.features)) == len(pyramid.features)
    color = x[..., None].expand(*x.shape, 3)
    torch.testing.assert_close(pyramid(color), seen, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(pyramid(x[:1]), seen[:1], rtol=1e-3, atol=1e-4)  # clips do not see each other
    assert not pyramid.state_dict()


def test_gradients_reach_pixels_from_gray():
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    EnergyPyramid(3, 16, 16)(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected \(clips, 8, 32, 48\)"):
        EnergyPyramid(*SIZE)(torch.zeros(1, 8, 32, 40))
    with pytest.raises(ValueError, match="at least 1 of each"):
        EnergyPyramid(0, 4, 4)


def test_no_filter_has_denormal_numbers():
    """With them, products take twenty times as long on some processors."""
    for name, x in EnergyPyramid(8, 64, 112).named_buffers():
        tiny = (x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)
        assert not tiny.any(), f"{name}: {int(tiny.sum())} denormal numbers"
