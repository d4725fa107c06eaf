from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adawise.adapt.predict import predict

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
ONES = (1.0, 1.0, 1.0)


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    exps = [math.exp(z / temperature) for z in row]
    return [e / sum(exps) for e in exps]


def test_the_top_classes_come_best_first_with_their_probabilities_and_the_entropy_of_all() -> None:
    served = predict(LOGITS, {}, index=1, temperatures=ONES, top_k=2)
    assert served.top_index.tolist() == [[0, 1], [2, 0]]
    p = softmax([2.0, 1.0, 0.0])
    np.testing.assert_allclose(served.top_probability[0], p[:2], rtol=1e-6)
    np.testing.assert_allclose(served.entropy[0], -sum(x * math.log(x) for x in p), rtol=1e-6)
    assert served.top_index.dtype == np.int32
    assert {served.top_probability.dtype, served.entropy.dtype} == {np.dtype(np.float32)}


def test_the_temperature_of_the_served_alpha_calibrates_and_leaves_the_order() -> None:
    served = predict(LOGITS, {}, index=1, temperatures=(1.0, 3.0, 1.0), top_k=3)
    np.testing.assert_allclose(served.top_probability[0], softmax([2.0, 1.0, 0.0], 3.0), rtol=1e-6)
    assert served.top_index[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_no_more_classes_are_kept_than_there_are(top_k: int) -> None:
    served = predict(LOGITS, {}, index=0, temperatures=ONES, top_k=top_k)
    assert served.top_index.shape == served.top_probability.shape == (2, min(top_k, 3))


def test_a_certain_answer_has_entropy_0_and_not_nan() -> None:
    served = predict(torch.tensor([[1e4, 0.0, 0.0]]), {}, index=0, temperatures=ONES, top_k=1)
    assert served.entropy.tolist() == [0.0]
    assert served.top_probability.tolist() == [[1.0]]


def test_the_ends_say_what_they_saw_on_the_images_that_they_saw_and_nothing_elsewhere() -> None:
    evaluated = {
        0: (np.array([1]), torch.tensor([[0.0, 4.0, 0.0]])),
        1: (np.array([0, 1]), LOGITS),
        2: (np.array([0, 1]), torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 1.0]])),
    }
    served = predict(LOGITS, evaluated, index=1, temperatures=(2.0, 1.0, 0.5), top_k=1)
    assert served.endpoint_index.tolist() == [[-1, 1], [0, 2]]
    assert np.isnan(served.endpoint_confidence[0, 0])
    np.testing.assert_allclose(served.endpoint_confidence[0, 1], max(softmax([0.0, 4.0, 0.0], 2.0)), rtol=1e-6)
    np.testing.assert_allclose(served.endpoint_confidence[1, 1], max(softmax([0.0, 0.0, 1.0], 0.5)), rtol=1e-6)


def test_without_an_end_among_the_trials_nothing_is_said_of_it() -> None:
    served = predict(LOGITS, {1: (np.array([0, 1]), LOGITS)}, index=1, temperatures=ONES, top_k=1)
    assert served.endpoint_index.tolist() == [[-1, -1], [-1, -1]]
    assert np.isnan(served.endpoint_confidence).all()


def test_an_end_that_is_served_agrees_with_what_is_served() -> None:
    served = predict(LOGITS, {0: (np.array([0, 1]), LOGITS)}, index=0, temperatures=(1.7, 1.0, 1.0), top_k=1)
    np.testing.assert_array_equal(served.endpoint_index[0], served.top_index[:, 0])
    np.testing.assert_array_equal(served.endpoint_confidence[0], served.top_probability[:, 0])
