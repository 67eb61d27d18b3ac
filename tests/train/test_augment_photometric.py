"""Photometry on tensors against its slow twins in NumPy, one operation at a time, and JPEG against Pillow's."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from shards.randomness import generator
from tests.train.planes import plane_view
from train.config import Photometric
from train.data.augment import photometric
from train.data.augment.compositing import composite_planes
from train.data.augment.geometry import box_of
from train.data.augment.jpeg import jpeg
from train.data.augment.noise import sensor_noise
from train.data.augment.photometric import Look

NOTHING = Look(0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0)


def plain(rgb: np.ndarray, look: Look) -> np.ndarray:
    """The slow twin: rgb (H,W,3) float32, every step after the other, without compression."""
    rgb = np.clip(rgb * np.float32(2 ** (look.exposure / 2.2)), 0, 1)
    rgb = np.clip(rgb * np.array(look[1:4], np.float32), 0, 1)
    rgb = rgb ** np.float32(look.gamma) * np.float32(look.brightness)
    mean = rgb.mean(dtype=np.float64)
    rgb = mean + (rgb - mean) * look.contrast
    rgb = (rgb @ photometric.colour_matrix(look.turn, look.saturation).T).astype(np.float32)
    if look.blur:
        rgb = ndimage.gaussian_filter(rgb, (look.blur, look.blur, 0))
    if look.sharpen:
        rgb = rgb + look.sharpen * (rgb - ndimage.gaussian_filter(rgb, (1, 1, 0)))
    if look.noise:
        rgb = rgb + look.noise * plain_noise(look, *rgb.shape[:2])
    return rgb


def plain_noise(look: Look, height: int, width: int) -> np.ndarray:
    """(H,W,3): the hash in unsigned 32-bit arithmetic."""
    x = np.arange(3 * height * width, dtype=np.uint32)
    for key in (look.key_low, look.key_high):
        x ^= np.uint32(key)
        for multiplier, shift in ((0x21F0AAAD, 16), (0xD35A2D97, 15)):
            x ^= x >> np.uint32(shift)
            x *= np.uint32(multiplier)
        x ^= x >> np.uint32(15)
    total = x.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int64)
    return ((total - 510) / math.sqrt(65535 / 3)).reshape(3, height, width).transpose(1, 2, 0)


def whole(rgb: np.ndarray, look: Look) -> np.ndarray:
    """(H,W,3) -> (H,W,3) by tensors, the whole image at once."""
    height, width = rgb.shape[:2]
    tensor = torch.from_numpy(rgb.transpose(2, 0, 1).copy())
    found = photometric.photographed(tensor, look, range(height), range(width), height, width)
    return found.numpy().transpose(1, 2, 0)


def picture(height: int = 70, width: int = 90, seed: int = 0) -> np.ndarray:
    """(H,W,3) float32: smooth shades, edges and some texture."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0:height, 0:width] / max(height, width)
    shades = np.stack([0.5 + 0.4 * np.sin(5 * u + k) * np.cos(4 * v - k) for k in range(3)], axis=-1)
    shades[height // 3 : height // 2, width // 4 : width // 2] = rng.random(3)
    return np.clip(shades + 0.02 * rng.standard_normal(shades.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"exposure": 0.4},
        {"gain_r": 1.1, "gain_g": 0.9, "gain_b": 1.05},
        {"gamma": 1.2},
        {"brightness": 0.85},
        {"contrast": 1.2},
        {"turn": 0.03},
        {"saturation": 0.7},
        {"blur": 1.0},
        {"blur": 0.3},
        {"sharpen": 0.8},
        {"noise": 0.03},
        {"exposure": -0.3, "gain_b": 1.1, "gamma": 0.8, "brightness": 1.1, "contrast": 0.8, "turn": 0.4, "blur": 0.7},
    ],
)
def test_each_operation_is_its_slow_twin(change: dict[str, float]) -> None:
    look = NOTHING._replace(**change)
    np.testing.assert_allclose(whole(picture(), look), plain(picture(), look), atol=3e-6)


def test_any_draw_is_what_the_slow_twins_make() -> None:
    config = Photometric(blur=0.5, sharpen=0.5, noise=0.5, jpeg=0)
    for i in range(20):
        (look,) = photometric.draw(config, 1, generator(0, i))
        np.testing.assert_allclose(whole(picture(), look), plain(picture(), look), atol=6e-6)


def test_zero_strength_is_the_identity() -> None:
    (look,) = photometric.draw(Photometric(**dict.fromkeys(Photometric.model_fields, 0.0)), 1, generator(0))
    np.testing.assert_allclose(whole(picture(), look), picture(), atol=1e-6)


def test_operations_do_what_they_say() -> None:
    rgb = picture() * 0.4 + 0.2
    grey = rgb.mean(-1, keepdims=True)
    np.testing.assert_allclose(whole(rgb, NOTHING._replace(saturation=0)), np.broadcast_to(grey, rgb.shape), atol=1e-6)
    np.testing.assert_allclose(whole(rgb, NOTHING._replace(turn=1 / 3)), rgb[..., [2, 0, 1]], atol=1e-6)
    brighter = whole(rgb, NOTHING._replace(exposure=1))
    np.testing.assert_allclose(brighter**2.2, np.minimum(2 * rgb**2.2, 1), rtol=1e-4)
    assert whole(rgb, NOTHING._replace(contrast=1.5)).std() == pytest.approx(1.5 * rgb.std(), rel=1e-4)
    assert whole(rgb, NOTHING._replace(blur=1)).std() < rgb.std() < whole(rgb, NOTHING._replace(sharpen=1)).std()


def test_a_look_is_drawn_within_the_settings_and_defects_as_often_as_they_say() -> None:
    config = Photometric()
    looks = [photometric.draw(config, 1, generator(0, i))[0] for i in range(2000)]
    for value, strength in (("exposure", config.exposure), ("turn", config.hue)):
        found = np.array([getattr(look, value) for look in looks])
        assert 0.98 * strength < np.abs(found).max() <= strength
        assert found.std() == pytest.approx(strength / math.sqrt(3), rel=0.05)
    for value, often in (("blur", config.blur), ("sharpen", 0.1), ("noise", 0.15), ("quality", config.jpeg)):
        assert np.mean([getattr(look, value) > 0 for look in looks]) == pytest.approx(often, abs=0.025)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(1 / np.mean((a.astype(np.float64) - b) ** 2)))


@pytest.mark.parametrize("quality", [40, 49, 50, 75, 94])
@pytest.mark.parametrize("size", [(64, 96), (70, 90), (28, 28)])
def test_compression_is_that_of_a_file(quality: int, size: tuple[int, int]) -> None:
    """Nearer to Pillow's file by far than either is to the picture: the same blocks, rounded by other code."""
    rgb = picture(*size)
    file = io.BytesIO()
    Image.fromarray((rgb * 255 + 0.5).astype(np.uint8)).save(file, "JPEG", quality=quality)
    written = np.asarray(Image.open(file), np.float32) / 255
    found = jpeg(torch.from_numpy(rgb.transpose(2, 0, 1).copy()), quality).numpy().transpose(1, 2, 0)
    assert psnr(found, written) > 42
    assert psnr(found, written) > psnr(written, rgb) + 8
    assert abs(psnr(found, rgb) - psnr(written, rgb)) < 0.3


def test_sensor_noise_is_white_and_nearly_normal() -> None:
    noise = sensor_noise(12345 << 20, 200, 300, range(200), range(300)).double().numpy()
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert np.mean(noise**4) == pytest.approx(2.7, abs=0.05)  # 3 less 1.2 / 4
    for shift in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 16, 0)):
        assert abs(np.mean(noise * np.roll(noise, shift, (0, 1, 2)))) < 0.01
    other = sensor_noise((12345 << 20) + (1 << 32), 200, 300, range(200), range(300)).double().numpy()
    assert abs(np.mean(noise * other)) < 0.01


def test_a_part_of_the_noise_is_the_same_numbers() -> None:
    all_of_it = sensor_noise(7, 40, 50, range(40), range(50))
    part = sensor_noise(7, 40, 50, range(10, 20), range(5, 50))
    assert torch.equal(part, all_of_it[:, 10:20, 5:50])


def cut_out(size: int = 126, square: bool = False) -> tuple[Tensor, Tensor, np.ndarray]:
    """A disc or a square between blocks, on a colour: rgb (3,H,W), shown (H,W), the colour."""
    colour = np.array([0.2, 0.5, 0.1], np.float32)
    rgba = plane_view(size).rgba.copy()
    v, u = np.mgrid[0:size, 0:size]
    inside = (abs(v - 63.5) < 16) & (abs(u - 47.5) < 16) if square else np.hypot(v - 70, u - 40) < 14
    rgba[..., 3] = 255 * inside
    rgba[..., 2] = picture(size, size)[..., 0] * 255
    return torch.from_numpy(composite_planes(rgba, colour)), torch.from_numpy(rgba[..., 3] > 0), colour


@pytest.mark.parametrize(
    "defect", [{}, {"contrast": 1.2}, {"blur": 1.0, "sharpen": 0.8, "noise": 0.02, "quality": 60.0}]
)
@pytest.mark.parametrize("square", [False, True])
def test_the_box_of_what_shows_is_all_that_need_be_computed(defect: dict[str, float], square: bool) -> None:
    """Blocks of the code, the colour of the blocks beside, the reach of filters, the mean of the whole image."""
    rgb, shown, colour = cut_out(square=square)
    size = len(shown)
    look = NOTHING._replace(exposure=0.3, gamma=0.9, gain_g=1.1, **defect).within(colour, box_of(shown.numpy()))
    assert (look.bottom - look.top) * (look.right - look.left) < 0.1 * size**2
    expected = photometric.photographed(rgb.clone(), look, range(size), range(size), size, size).clamp(0, 1)
    expected = torch.where(shown, expected, torch.from_numpy(colour)[:, None, None])
    found = photometric.finished(rgb.clone(), shown, look)
    assert (found - expected).abs().max() <= (1 / 255 + 1e-6 if "quality" in defect else 1e-6)
    assert ((found - expected).abs() > 1e-6).float().mean() < 1e-4


def test_one_thread_or_several_make_the_same_image() -> None:
    rgb = torch.from_numpy(picture(196, 196).transpose(2, 0, 1).copy())
    looks = [NOTHING._replace(contrast=1.2, gamma=0.9, blur=0.8, noise=0.02, quality=60.0), NOTHING]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([photometric.photographed(rgb.clone(), k, range(196), range(196), 196, 196) for k in looks])
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_makes_the_same_image() -> None:
    """The noise bit for bit; the rest within rounding, but for coefficients that lie between two steps."""
    here, there = torch.device("cpu"), torch.device("cuda")
    noise = [sensor_noise(7, 200, 300, range(200), range(300), device).cpu() for device in (here, there)]
    assert torch.equal(*noise)
    config = Photometric(blur=0.5, sharpen=0.5, noise=0.5, jpeg=0.5)
    for i in range(20):
        (look,) = photometric.draw(config, 1, generator(0, i))
        rgb = torch.from_numpy(picture().transpose(2, 0, 1).copy())
        one, other = (
            photometric.photographed(rgb.to(device, copy=True), look, range(70), range(90), 70, 90).cpu()
            for device in (here, there)
        )
        assert (one - other).abs().max() < (0.1 if look.quality else 1e-5)
        assert psnr(one.numpy(), other.numpy()) > (40 if look.quality else 90)
