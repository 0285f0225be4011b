import math

import pytest
import torch

from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt

SCHEDULES = [Sqrt(), Cosine(), Linear()]


# ᾱ of the released code's 2,000 steps, computed by its authors' formula (and quoted by a user in their issue #51).
@pytest.mark.parametrize(
    ("index", "value"), [(0, 0.98536), (9, 0.93797), (1000, 0.2954), (1998, 2.02e-4), (1999, 2e-7)]
)
def test_sqrt_is_the_released_schedule(index, value):
    assert Sqrt().alpha_bar(torch.tensor((index + 1) / 2000, dtype=torch.float64)).item() == pytest.approx(
        value, rel=2e-3
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_alpha_bar_falls_from_one_to_almost_none(schedule):
    values = schedule.alpha_bar(torch.linspace(0, 1, 101))
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values[-1] < 1e-4
    assert (values.diff() <= 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_least_time_is_where_a_word_can_be_read_off(schedule):
    schedule = type(schedule)(margin=1.5)
    alpha_bar = schedule.alpha_bar(torch.tensor(schedule.low(energy=32, choices=800))).item()
    assert 32 * alpha_bar / (1 - alpha_bar) == pytest.approx(1.5 * 2 * math.log(800), rel=1e-3)


def test_without_a_margin_all_times_are_used():
    assert Sqrt(margin=None).low(energy=32, choices=800) == 0
