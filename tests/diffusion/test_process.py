"""Predict, pick and sample (Eq. 4-5) against values worked out by hand."""

from typing import cast

import pytest
import torch

from sdm_lightning.diffusion import (
    Prediction,
    SpatialDiffusion,
    gaussian_noise,
    initial_state,
    pick,
    predict,
    sample,
    standard_deviation_map,
)
from sdm_lightning.diffusion.uncertainty import UncertaintyChannels


def random_problem(batch=3, size=16, hole=0.6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, size, size, generator=rng) * 2 - 1
    mask = (torch.rand(batch, 1, size, size, generator=rng) > hole).float()
    return image, mask


def noisy_network(seed=1):
    """Deterministic in its input, with a different deviation at each pixel."""
    kernel = torch.randn(6, 7, 3, 3, generator=torch.Generator().manual_seed(seed))

    def network(inputs):
        out = torch.nn.functional.conv2d(inputs, kernel, padding=1)
        return out[:, :3].tanh(), out[:, 3:]

    return network


def prediction_with_deviation(deviation):
    log_variance = (2 * deviation.log()).expand(-1, 3, -1, -1)
    return Prediction(torch.zeros_like(log_variance), log_variance, deviation)


def test_input_channels_in_order():
    image, mask = random_problem(batch=1)
    seen = []

    def network(inputs):
        seen.append(inputs)
        return inputs[:, :3] + 0.25, torch.zeros_like(inputs[:, :3])

    list(SpatialDiffusion(num_iterations=4, alpha=0).iterate(network, image, mask))
    first, second = seen[0], seen[1]
    assert first.shape == (1, 7, 16, 16)
    torch.testing.assert_close(first[:, :3], image * mask)
    torch.testing.assert_close(first[:, 3:4], mask)
    torch.testing.assert_close(first[:, 4:5], mask)
    torch.testing.assert_close(first[:, 5:6], 1 - mask)
    assert first[:, 6].unique().item() == 0.0
    torch.testing.assert_close(second[:, 3:4], mask)
    assert second[:, 4].sum() > mask.sum()
    assert second[:, 6].unique().item() == 0.25


def test_the_least_uncertain_are_picked_and_ties_go_in_row_major_order():
    mask = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 0.0]]]])
    state = initial_state(torch.zeros(1, 3, 1, 5), mask)
    deviation = torch.tensor([[[[0.01, 0.5, 0.2, 0.5, 0.2]]]])
    new_mask, uncertainty = pick(state, prediction_with_deviation(deviation), mask, 0.75, deviation)
    assert new_mask.flatten().tolist() == [1, 1, 1, 0, 1]
    torch.testing.assert_close(uncertainty.flatten(), torch.tensor([0.0, 0.5, 0.2, 1.0, 0.2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_count_as_many_pixels(dtype):
    mask = torch.zeros(1, 1, 300, 301, dtype=dtype)  # more than the largest float16
    state = initial_state(torch.zeros(1, 3, 300, 301, dtype=dtype), mask)
    deviation = torch.rand(1, 1, 300, 301)
    new_mask, _ = pick(state, prediction_with_deviation(deviation), mask, 0.25, deviation)
    assert new_mask.dtype == dtype
    assert new_mask.float().sum() == round(300 * 301 / 4)


def test_uncertainty_is_stretched_over_the_hole():
    # Known pixels do not count, neither the surest nor the least sure.
    mask = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 1.0]]]])
    deviation = torch.tensor([[[[9.0, 0.1, 0.3, 0.2, 0.01]]]])

    def network(inputs):
        log_variance = (2 * deviation.log()).expand(-1, 3, -1, -1)
        return torch.zeros_like(log_variance), log_variance

    state = initial_state(torch.zeros(1, 3, 1, 5), mask)
    found = predict(network, state, mask, 1).uncertainty.flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0, 0.5, 0.0]))
    clamped = predict(network, state, mask, 1, "clamp").uncertainty.flatten()
    torch.testing.assert_close(clamped, torch.tensor([0.0, 0.1, 0.3, 0.2, 0.0]))


@pytest.mark.parametrize(("channels", "first"), [("mean", 1), ("max", 0)])
def test_the_loop_picks_by_the_mean_or_the_largest_deviation(channels, first):
    deviation = torch.tensor([[0.3, 0.3, 0.3], [0.0, 0.0, 0.6]]).T.view(1, 3, 1, 2)

    def network(inputs):
        return torch.zeros_like(deviation), 2 * deviation.log()

    loop = SpatialDiffusion(num_iterations=2, uncertainty_channels=channels)
    step = next(iter(loop.iterate(network, torch.zeros(1, 3, 1, 2), torch.zeros(1, 1, 1, 2))))
    assert step.state.mask.flatten().argmax() == first
    assert step.uncertainty.flatten().argmin() == first
    with pytest.raises(ValueError, match="uncertainty_channels is 'sum', not mean or max"):
        SpatialDiffusion(uncertainty_channels=cast("UncertaintyChannels", "sum"))


def test_a_subclass_picks_by_another_ranking():
    class MostUncertainFirst(SpatialDiffusion):
        def ranking(self, prediction, state, initial_mask):
            return -super().ranking(prediction, state, initial_mask)

    deviation = torch.tensor([[[[0.1, 0.4, 0.2, 0.3]]]]).expand(1, 3, 1, 4)
    image, mask = torch.zeros(1, 3, 1, 4), torch.zeros(1, 1, 1, 4)
    mask[..., 0] = 1  # known pixels are never picked, however they rank
    for loop, first in ((SpatialDiffusion(3), 2), (MostUncertainFirst(3), 1)):
        step = next(
            loop.iterate(lambda x: (torch.zeros(1, 3, 1, 4), 2 * deviation.log()), image, mask)
        )
        assert (step.state.mask - mask).flatten().nonzero().flatten().tolist() == [first]
        # The uncertainty itself is the deviation's: of 0.4 the largest, of 0.2 the least.
        torch.testing.assert_close(step.uncertainty.flatten(), torch.tensor([0.0, 1.0, 0.0, 0.5]))


def test_a_ranking_sees_what_was_picked_so_far():
    class FromTheKnownInwards(SpatialDiffusion):
        def ranking(self, prediction, state, initial_mask):
            return 1 - torch.nn.functional.max_pool2d(state.mask, 3, stride=1, padding=1)

    image, mask = torch.zeros(1, 3, 1, 5), torch.zeros(1, 1, 1, 5)
    mask[..., 4] = 1
    steps = FromTheKnownInwards(4).iterate(noisy_network(), image, mask)
    known = [step.state.mask.flatten().tolist() for step in steps]
    assert known == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]


def test_settings_of_the_loop_reach_every_iteration():
    """And a T of the call's own counts for the time and for the schedule, too."""
    image, mask = random_problem(batch=1)
    times = []

    def network(inputs):
        times.append(inputs[0, 6].unique().item())
        return noisy_network()(inputs)

    loop = SpatialDiffusion(num_iterations=2, uncertainty_scale="clamp")
    steps = list(loop.iterate(network, image, mask, num_iterations=4))
    assert times == [0.0, 0.25, 0.5, 0.75]
    hole = (1 - mask).sum()
    for number, step in enumerate(steps, start=1):
        assert (step.state.mask - mask).sum() == torch.round(hole * number / 4)
        expected = standard_deviation_map(step.log_variance).clamp(0, 1) * (1 - mask)
        torch.testing.assert_close(step.uncertainty, expected)


def test_uncertainty_is_no_path_for_gradients():
    image, mask = random_problem(batch=1)
    weight = torch.ones((), requires_grad=True)

    def network(inputs):
        mean, log_variance = noisy_network()(inputs)
        return mean, weight * log_variance

    found = predict(network, initial_state(image, mask), mask, 1)
    assert found.log_variance.requires_grad
    assert not found.uncertainty.requires_grad


def test_clamped_uncertainty_still_ranks_pixels_beyond_the_clamp():
    deviation = torch.tensor([3.0, 1.5, 2.0]).expand(1, 3, 1, 3)
    image, mask = torch.zeros(1, 3, 1, 3), torch.zeros(1, 1, 1, 3)
    loop = SpatialDiffusion(num_iterations=3, uncertainty_scale="clamp")
    step = next(loop.iterate(lambda x: (image, 2 * deviation.log()), image, mask))
    assert step.uncertainty.flatten().tolist() == [1, 1, 1]
    assert step.state.mask.flatten().tolist() == [0, 1, 0]


def test_sampling_follows_equation_5():
    image, mask = random_problem(batch=2, size=64)
    known = initial_state(image, mask).image
    mean = torch.full_like(image, 0.3)
    prediction = Prediction(mean, torch.full_like(image, 2 * torch.tensor(0.4).log()), mask)
    new_mask = torch.ones_like(mask)
    new_mask[:, :, :8] = mask[:, :, :8]
    drawn = sample(known, mask, new_mask, prediction, alpha=0.5)
    assert torch.equal(drawn * mask, image * mask), "known pixels must be bit-exact"
    assert (drawn * (1 - new_mask) == 0).all(), "missing pixels must stay 0"
    noise = (drawn - mean)[((new_mask - mask) > 0).expand_as(drawn)] / (0.5 * 0.4)
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert abs(noise.std().item() - 1) < 0.03
    silent = sample(known, mask, new_mask, prediction, alpha=0.0)
    torch.testing.assert_close(silent, image * mask + (new_mask - mask) * mean)


def test_last_iteration_returns_the_mean_without_noise():
    image, mask = random_problem()
    last = SpatialDiffusion(num_iterations=3, alpha=10.0)(noisy_network(), image, mask)
    torch.testing.assert_close(last.state.image, last.completed)
    torch.testing.assert_close(last.completed, image * mask + last.mean * (1 - mask))


@pytest.mark.parametrize("repredict", [True, False])
def test_filled_pixels_are_predicted_anew_or_kept(repredict):
    """A network that returns the number of its call, so that a pixel shows its call."""
    image, mask = random_problem(batch=1)
    calls = []

    def network(inputs):
        calls.append(inputs)
        mean = torch.full_like(inputs[:, :3], 0.1 * len(calls))
        return mean, noisy_network()(inputs)[1]

    diffusion = SpatialDiffusion(num_iterations=3, alpha=0.0, repredict=repredict)
    steps = list(diffusion.iterate(network, image, mask))
    last = steps[-1]
    torch.testing.assert_close(last.state.image, last.completed)
    filled_first = (steps[0].state.mask - mask).bool().expand(-1, 3, -1, -1)
    filled_last = (1 - steps[1].state.mask).bool().expand(-1, 3, -1, -1)
    assert last.completed[filled_first].unique().item() == pytest.approx(0.3 if repredict else 0.1)
    assert last.completed[filled_last].unique().item() == pytest.approx(0.3)
    assert steps[1].completed[filled_last].unique().item() == pytest.approx(0.2)


def test_one_iteration_is_one_network_pass():
    image, mask = random_problem()
    network = noisy_network()
    zeros = torch.zeros_like(mask)
    mean, _ = network(torch.cat([image * mask, mask, mask, 1 - mask, zeros], dim=1))
    done = SpatialDiffusion(num_iterations=1)(network, image, mask)
    torch.testing.assert_close(done.completed, image * mask + mean * (1 - mask))


@pytest.mark.parametrize(("detach", "expected"), [(True, False), (False, True)])
def test_gradient_reaches_the_previous_iteration_only_when_asked(detach, expected):
    image, mask = random_problem()
    weight = torch.nn.Parameter(torch.ones(()))
    calls = []

    def network(inputs):
        calls.append(None)
        used = weight if len(calls) == 1 else torch.ones(())
        return inputs[:, :3] + used, inputs[:, :3] * 0

    last = SpatialDiffusion(num_iterations=2, detach=detach)(network, image, mask)
    assert last.completed.requires_grad is expected
    if expected:
        last.completed.sum().backward()
        assert weight.grad is not None
        assert weight.grad != 0


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    like = torch.empty(3, 3, 4, 4)
    together = gaussian_noise(like, [torch.Generator().manual_seed(s) for s in (5, 6, 7)])
    alone = gaussian_noise(like[:1], [torch.Generator().manual_seed(6)])
    assert torch.equal(together[1:2], alone)
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        gaussian_noise(like, [torch.Generator()] * 2)


def test_wrong_input_is_named():
    image, mask = random_problem()
    with pytest.raises(ValueError, match="other than 1"):
        initial_state(image, mask * 255)
    with pytest.raises(ValueError, match=r"not \(3, 1, 16, 16\)"):
        initial_state(image, mask[:, :, :8])
    with pytest.raises(ValueError, match="num_iterations is 0"):
        SpatialDiffusion(num_iterations=0)


class Late:
    def __call__(self, progress):
        return None


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (lambda r: r + 1, "is 1 at progress 0; it must rise from 0 to 1"),
        (lambda r: r / 2, "is 0.5 at progress 1; it must"),
        (lambda r: r if r in (0, 1) else float("nan"), "is nan at progress 0.01; it must"),
        (lambda r: r if r < 0.5 or r == 1 else 7, "is 7 at progress 0.5; it must"),
        (lambda r: r if r < 0.5 or r == 1 else 0.2, "is 0.2 at progress 0.5 after 0.49; it must"),
        (Late(), "schedule Late gives no number at progress 0: TypeError"),
        (lambda r, s: r, "gives no number at progress 0: TypeError"),
    ],
)
def test_a_schedule_rises_from_0_to_1(schedule, says):
    with pytest.raises(ValueError, match=says):
        SpatialDiffusion(schedule=schedule)
