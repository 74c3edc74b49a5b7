import math

import numpy as np
import pytest
import torch

from diffusionlab import guards

HUGE = torch.arange(5000)

REFUSED = [
    (guards.check_images, (torch.zeros(2, 3, dtype=torch.uint8),)),
    (guards.check_images, (torch.zeros(2, 3, dtype=torch.int64),)),
    (guards.check_images, ([[0.0]],)), (guards.check_images, (np.zeros((2, 3)),)), (guards.check_images, (torch.zeros(3),)),
    (guards.check_same_shape, (torch.zeros(2, 3), torch.zeros(3, 2))),
    (guards.check_same_shape, (torch.zeros(2, 3), torch.zeros(3))),
    *[(guards.check_shape, (shape,)) for shape in [8, (8,), (8, 0), (8, -1), (8, 2.0), (8, True), None, "8,1",
                                                   list(range(5000))]],
    *[(guards.check_timestep, (t, 10)) for t in [-1, 10, 3.0, "3", None, True, math.nan, HUGE]],
    *[(guards.check_jump, (5, s, 10)) for s in [5, 6, -2, 1.0, None, False]], (guards.check_jump, (10, 3, 10)),
    (guards.check_jump, (-1, -1, 10)),
    *[(guards.check_eta, (eta,)) for eta in [-0.1, math.nan, math.inf, -math.inf, "1", None, True, 1j, torch.tensor(0.5)]],
    *[(guards.check_num_steps, (n, 10)) for n in [0, -1, 11, 2.5, 5.0, "5", None, True, HUGE]],
    *[(guards.check_timesteps, (steps, 10)) for steps in [[], [3, 3], [2, 5], [10, 5], [5, -1], [5.0, 2.0], [9, 4, 6],
                                                          [[9, 4]]]],
    *[(guards.check_count, (n, "batch_size")) for n in [0, -3, 2.5, 4.0, None, "4", True, HUGE]],
    (guards.check_finite, (torch.tensor([1.0, math.nan]),)), (guards.check_finite, (torch.tensor([[-math.inf]]),)),
    (guards.check_sigma, (0.31, 0.7)), (guards.check_sigma, (torch.tensor([0.1, 0.4]), torch.tensor([0.5, 0.7]))),
]

ACCEPTED = [
    (guards.check_images, (torch.zeros(1, 2),)), (guards.check_images, (torch.zeros(1, 2, dtype=torch.float16),)),
    (guards.check_same_shape, (torch.zeros(2, 3), torch.ones(2, 3))),
    (guards.check_shape, ((1, 1),)), (guards.check_shape, ([2, np.int64(3)],)),
    (guards.check_shape, (torch.zeros(2, 3).shape,)),
    (guards.check_timestep, (0, 10)), (guards.check_timestep, (np.int64(9), 10)), (guards.check_jump, (0, -1, 10)),
    (guards.check_jump, (9, 8, 10)),
    (guards.check_eta, (0,)), (guards.check_eta, (np.float32(0.5),)), (guards.check_num_steps, (1, 10)),
    (guards.check_num_steps, (10, 10)),
    (guards.check_timesteps, ([9],)+(10,)), (guards.check_timesteps, ([9, 5, 0], 10)),
    (guards.check_count, (1, "batch_size")),
    (guards.check_finite, (torch.zeros(2, 2),)), (guards.check_sigma, (0.3, 0.5)), (guards.check_sigma, (0.0, 1.0)),
]


@pytest.mark.parametrize(("check", "arguments"), REFUSED)
def test_bad_input_gets_one_clear_line(check, arguments):
    with pytest.raises(ValueError) as refusal:
        check(*arguments)
    message = str(refusal.value)
    assert 20 < len(message) < 200 and "\n" not in message


@pytest.mark.parametrize(("check", "arguments"), ACCEPTED)
def test_good_input_passes_in_silence(check, arguments):
    assert check(*arguments) is None
