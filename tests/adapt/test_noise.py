from __future__ import annotations

import math

import numpy as np

from adawise.adapt.noise import PairedNoise


def test_a_stream_learns_how_much_its_images_differ() -> None:
    rng = np.random.default_rng(0)
    for slope in (0.1, 2.0):
        noise = PairedNoise()
        for _ in range(400):
            distance = float(rng.choice([-0.5, 0.25, 1.0]))
            noise = noise.learned(distance, rng.normal(0.3, slope * abs(distance), size=4))
        # of the last 50 looks at 4 images: 8 % error, five of them
        assert abs(float(noise.variance(1.0, 1)) ** 0.5 - slope) < 0.4 * slope


def test_the_variance_grows_with_the_distance_and_falls_with_the_images() -> None:
    noise = PairedNoise()
    variances = noise.variance(np.array([[0.25], [1.0]]), np.array([4, 8]))
    assert variances.shape == (2, 2)
    assert (variances[1] > 10 * variances[0]).all()
    assert (variances[:, 0] > 1.8 * variances[:, 1]).all()


def test_a_few_differences_that_happen_to_agree_are_not_believed_to_be_exact() -> None:
    noise = PairedNoise()
    alike = noise.measured(0.5, np.full(3, 0.2))
    assert alike > 0.5 * float(noise.variance(0.5, 3))
    rng = np.random.default_rng(0)
    wide = noise.measured(0.5, rng.normal(0.0, 5.0, size=64))
    assert math.isclose(wide, 25.0 / 64, rel_tol=0.4)


def test_one_difference_has_no_spread_and_teaches_none() -> None:
    noise = PairedNoise()
    assert noise.learned(0.5, np.array([0.3])) == noise
    assert noise.measured(0.5, np.array([0.3])) == float(noise.variance(0.5, 1))
