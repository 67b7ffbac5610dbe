"""Schedules against their closed forms (Fig. 7)."""

import math

import pytest

from sdm_lightning.diffusion import (
    CosineSchedule,
    CubicSchedule,
    SquareRootSchedule,
    UniformSchedule,
)

HALFWAY = {
    UniformSchedule: 0.5,
    CosineSchedule: 1 - math.sqrt(0.5),
    CubicSchedule: 0.125,
    SquareRootSchedule: math.sqrt(0.5),
}


@pytest.mark.parametrize(("schedule", "value"), HALFWAY.items())
def test_value_halfway(schedule, value):
    assert schedule()(0.5) == pytest.approx(value)


@pytest.mark.parametrize("schedule", HALFWAY)
def test_runs_from_zero_to_one_without_falling(schedule):
    values = [schedule()(i / 50) for i in range(51)]
    assert values[0] == pytest.approx(0)
    assert values[-1] == pytest.approx(1)
    assert values == sorted(values)


def test_order_of_the_paper_s_figure():
    """Cubic fills least at first, then cosine, uniform, square root."""
    early = [
        s()(1 / 3) for s in (CubicSchedule, CosineSchedule, UniformSchedule, SquareRootSchedule)
    ]
    assert early == sorted(early)
