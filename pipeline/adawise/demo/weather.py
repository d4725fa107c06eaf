"""Light, weather and the camera's own faults, as a few numbers with a physical meaning.

Stage: the simulated street cameras of the demo, between the drawn scene (`scene.py`) and the JPEG that is sent. A
`Weather` is continuous: `blend` moves from one to another, so a script can let the night fall slowly.

The steps follow the light: sky and lamps light the scene; the air scatters light (Koschmieder's law: transmission
exp(-extinction * distance)); the lens adds drops, dirt and flare; the shutter smears; the sensor adds noise; and the
encoder discards detail.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[np.floating]  # computed in float32 throughout


@dataclass(frozen=True, slots=True)
class Weather:
    """The state of light, air, lens and sensor; the defaults are a clear day.

    Attributes:
        daylight: in [0, 1], as are `lamps`, `rain`, `glare` and `dirt`.
        warmth: in [-1, 1], from blue to orange light.
        fog: extinction per unit of distance, >= 0; the far end of a street is at distance 1.
        exposure: factor by which the shutter multiplies the light, > 0.
        motion_blur: length in pixels.
        noise: standard deviation, in units of full scale.
        jpeg_quality: Pillow's, 1 to 95.
    """

    daylight: float = 1.0
    warmth: float = 0.0
    lamps: float = 0.0
    fog: float = 0.0
    rain: float = 0.0
    glare: float = 0.0
    dirt: float = 0.0
    exposure: float = 1.0
    motion_blur: float = 0.0
    noise: float = 0.008
    jpeg_quality: float = 90.0


PRESETS: dict[str, Weather] = {
    "clear": Weather(),
    "dusk": Weather(daylight=0.4, warmth=0.7, lamps=0.4, noise=0.03),
    "night": Weather(daylight=0.13, warmth=-0.35, lamps=1.0, noise=0.045),
    "fog": Weather(daylight=0.9, fog=2.6, noise=0.012),
    "rain": Weather(daylight=0.55, warmth=-0.3, lamps=0.2, fog=0.7, rain=1.0, noise=0.025),
    "glare": Weather(warmth=0.3, glare=1.0),
    "dirty_lens": Weather(dirt=1.0),
    "motion_blur": Weather(motion_blur=13.0),
    "sensor_noise": Weather(noise=0.2),
    "low_bitrate": Weather(noise=0.02, jpeg_quality=5.0),
}
"""Conditions by name, at full severity; `blend(PRESETS["clear"], preset, severity)` gives weaker ones."""


@dataclass(frozen=True, slots=True)
class Lamp:
    """A source of light in the picture: centre and radius in pixels, colour in [0, 1], strength 0 to about 1."""

    x: float
    y: float
    radius: float
    color: tuple[float, float, float]
    strength: float


def blend(a: Weather, b: Weather, t: float) -> Weather:
    """Return the weather a fraction `t` in [0, 1] of the way from `a` to `b`; every quantity moves linearly."""
    values = {f.name: (1 - t) * getattr(a, f.name) + t * getattr(b, f.name) for f in fields(Weather)}
    return Weather(**values)


def expose(scene: Array, distance: Array, lamps: list[Lamp], weather: Weather, rng: np.random.Generator) -> bytes:
    """Return the JPEG that a camera sends of a scene in a weather.

    Args:
        scene: `[H, W, 3]` colours in [0, 1] as on an overcast noon.
        distance: `[H, W, 1]` distance of each pixel in [0, 1].
        lamps: lamps in the scene; they shine with `weather.lamps`.
        weather: light, air, lens and sensor.
        rng: the only source of randomness (drops, blotches, noise).
    """
    light = _through_air(_lit(scene, lamps, weather), distance, weather)
    light = _through_lens(light, weather, rng)
    if abs(weather.exposure - 1.0) > 0.01:
        light = light * np.float32(weather.exposure)
    picture = Image.fromarray(_to_bytes(light))
    if weather.motion_blur > 0.5:
        picture = picture.filter(ImageFilter.BoxBlur((weather.motion_blur / 2, weather.motion_blur / 12)))
    if weather.noise > 0:
        grain = rng.standard_normal(scene.shape, dtype=np.float32)
        grain *= np.float32(weather.noise)
        picture = Image.fromarray(_to_bytes(np.asarray(picture, dtype=np.float32) / 255 + grain))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=round(weather.jpeg_quality))
    return jpeg.getvalue()


def _lit(scene: Array, lamps: list[Lamp], weather: Weather) -> Array:
    """Return the scene under the sky's light, with the light of the lamps on it and the lamps themselves."""
    tint = np.array([1 + 0.3 * weather.warmth, 1.0, 1 - 0.35 * weather.warmth], dtype=np.float32)
    lit = scene * (tint * np.float32(weather.daylight))
    if weather.lamps <= 0.01:
        return lit
    height, width = scene.shape[:2]
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    shine = np.zeros_like(scene)
    glow = np.zeros_like(scene)
    for lamp in lamps:
        color = np.asarray(lamp.color, dtype=np.float32) * np.float32(lamp.strength * weather.lamps)
        shine += _spot(rows, columns, lamp, 4.0)[:, :, None] * (0.55 * color)
        glow += _spot(rows, columns, lamp, 1.0)[:, :, None] * color
    lit += scene * shine + glow
    return lit


def _spot(rows: Array, columns: Array, lamp: Lamp, spread: float) -> Array:
    """Return a Gaussian spot `[H, W]` of height 1 around a lamp."""
    width = 2 * (lamp.radius * spread) ** 2
    across: Array = np.exp(-((columns - lamp.x) ** 2) / width)
    down: Array = np.exp(-((rows - lamp.y) ** 2) / width)
    return down[:, None] * across[None, :]


def _through_air(light: Array, distance: Array, weather: Weather) -> Array:
    """Replace the light of distant pixels by light that the air scatters in (Koschmieder's law)."""
    if weather.fog <= 0.01:
        return light
    transmission = np.exp(-np.float32(weather.fog) * distance)
    airlight = np.array([0.78, 0.8, 0.82], dtype=np.float32) * np.float32(0.12 + 0.88 * weather.daylight)
    hazy: Array = light * transmission + airlight * (1 - transmission)
    return hazy


def _through_lens(light: Array, weather: Weather, rng: np.random.Generator) -> Array:
    """Add rain in front of the lens, dirt on it, and the sun shining into it."""
    if weather.rain > 0.01:
        streaks = _streaks(light.shape[0], light.shape[1], weather.rain, rng)
        light = light * (1 - 0.55 * streaks) + np.float32(0.5 * (0.25 + weather.daylight)) * streaks
        light = _blurred(light, 1.3 * weather.rain)
    if weather.dirt > 0.01:
        cover = _blotches(light.shape[0], light.shape[1], weather.dirt, rng)
        brown = np.array([0.33, 0.28, 0.22], dtype=np.float32) * np.float32(0.2 + 0.8 * weather.daylight)
        light = _blurred(light, 0.8 * weather.dirt) * (1 - cover) + brown * cover
    if weather.glare > 0.01:
        sun = Lamp(rng.uniform(0.15, 0.85) * light.shape[1], rng.uniform(0.0, 0.45) * light.shape[0], 1.0, (1, 1, 1), 1)
        rows = np.arange(light.shape[0], dtype=np.float32)
        columns = np.arange(light.shape[1], dtype=np.float32)
        flare = 1.5 * _spot(rows, columns, sun, 11.0) + 0.75 * _spot(rows, columns, sun, 42.0)
        bloom = flare[:, :, None] * np.array([1.0, 0.95, 0.82], dtype=np.float32)
        light = light * np.float32(1 - 0.35 * weather.glare) + np.float32(weather.glare) * bloom
    return light


def _streaks(height: int, width: int, rain: float, rng: np.random.Generator) -> Array:
    """Draw falling drops, smeared by the shutter: opacity `[H, W, 1]` in [0, 1]."""
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    slant = rng.uniform(-0.25, 0.25)
    for x, y, length, opacity in rng.uniform((-10, -12, 8, 90), (width + 10, height, 22, 230), (int(75 * rain) + 1, 4)):
        pen.line((x, y, x + slant * length, y + length), fill=int(opacity))
    layer = layer.filter(ImageFilter.BoxBlur(0.6))
    cover: Array = np.asarray(layer, dtype=np.float32)[:, :, None] / 255
    return cover


def _blotches(height: int, width: int, dirt: float, rng: np.random.Generator) -> Array:
    """Draw dried drops and dust on the lens: opacity `[H, W, 1]` in [0, .95], soft because they are out of focus."""
    layer = Image.new("L", (width, height), int(70 * dirt))
    pen = ImageDraw.Draw(layer)
    for x, y, radius, opacity in rng.uniform((0, 0, 3, 120), (width, height, 13, 250), (int(16 * dirt) + 1, 4)):
        pen.ellipse((x - radius, y - radius * 0.8, x + radius, y + radius * 0.8), fill=int(opacity * min(1.0, dirt)))
    layer = layer.filter(ImageFilter.BoxBlur(2.2))
    cover: Array = np.asarray(layer, dtype=np.float32)[:, :, None] * (0.95 / 255)
    return cover


def _blurred(light: Array, radius: float) -> Array:
    return np.asarray(Image.fromarray(_to_bytes(light)).filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255


def _to_bytes(light: Array) -> npt.NDArray[np.uint8]:
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)
