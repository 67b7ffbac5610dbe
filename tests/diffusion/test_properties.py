"""What holds for every mask, size, schedule and seed (hypothesis)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdm_lightning.diffusion import CubicSchedule, SpatialDiffusion, UniformSchedule
from tests.diffusion.test_process import noisy_network

few = settings(max_examples=40, deadline=None)


@st.composite
def problems(draw):
    """A batch of images with masks of any kind, and a loop of any kind."""
    batch, height, width = (draw(st.integers(1, most)) for most in (3, 9, 9))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    image = torch.rand(batch, 3, height, width, generator=rng) * 2 - 1
    # Also all known, all missing, and single pixels.
    share = draw(st.sampled_from([0.0, 0.02, 0.3, 0.7, 0.98, 1.0]))
    mask = (torch.rand(batch, 1, height, width, generator=rng) < share).float()
    power = draw(st.floats(0.2, 6))
    schedules = [UniformSchedule(), CubicSchedule(), lambda progress: progress**power]
    loop = SpatialDiffusion(
        num_iterations=draw(st.integers(1, 6)),
        schedule=draw(st.sampled_from(schedules)),
        alpha=draw(st.sampled_from([0.0, 0.01, 1.0])),
        uncertainty_scale=draw(st.sampled_from(["minmax", "clamp"])),
        repredict=draw(st.booleans()),
        uncertainty_channels=draw(st.sampled_from(["mean", "max"])),
    )
    # From constant deviations, where all pixels tie, to such that exp() must be limited.
    scale = draw(st.sampled_from([0.0, 1.0, 100.0]))
    network = noisy_network(draw(st.integers(0, 100)))

    def scaled(inputs):
        mean, log_variance = network(inputs)
        return mean, scale * log_variance

    return loop, scaled, image, mask, draw(st.integers(0, 2**31))


def run(loop, network, image, mask, seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return list(loop.iterate(network, image, mask, generator=generators))


@few
@given(problems())
def test_every_run(problem):
    loop, network, image, mask, seed = problem
    seeds = [seed + index for index in range(len(image))]
    steps = run(loop, network, image, mask, seeds)
    known = mask.expand_as(image).bool()
    hole = (1 - mask).flatten(1).sum(1)
    before = mask
    for number, step in enumerate(steps, start=1):
        # Known pixels never change, to the last bit, in what is shown and in what is handed on.
        assert torch.equal(step.completed[known], image[known])
        assert torch.equal(step.state.image[known], image[known])
        # Masks only grow, hold only 0 and 1, and follow the schedule exactly.
        assert ((step.state.mask == 0) | (step.state.mask == 1)).all()
        assert (step.state.mask >= before).all()
        fraction = loop.schedule(number / len(steps)) if number < len(steps) else 1.0
        expected = mask.flatten(1).sum(1) + torch.round(hole * fraction)
        assert torch.equal(step.state.mask.flatten(1).sum(1), expected)
        before = step.state.mask
        # Uncertainty lies in [0, 1]: 0 where given, 1 where still missing.
        for uncertainty in (step.uncertainty, step.state.uncertainty):
            assert ((uncertainty >= 0) & (uncertainty <= 1)).all()
        assert (step.state.uncertainty[mask.bool()] == 0).all()
        assert (step.state.uncertainty[step.state.mask == 0] == 1).all()
        assert step.completed.isfinite().all()
    assert (before == 1).all()
    assert torch.equal(steps[-1].state.image, steps[-1].completed)

    # The same seeds give the same result, and a sample's is its own, whatever its batch.
    again = run(loop, network, image, mask, seeds)
    assert torch.equal(again[-1].completed, steps[-1].completed)
    last = len(image) - 1
    alone = run(loop, network, image[last:], mask[last:], seeds[last:])
    # The test's convolution may sum in another order for another batch size.
    torch.testing.assert_close(alone[0].completed, steps[0].completed[last:], rtol=1e-4, atol=1e-5)


@few
@given(problems(), st.integers(0, 2**31))
def test_what_the_hole_holds_is_never_read(problem, seed):
    loop, network, image, mask, seeds = problem
    other = torch.where(mask.bool(), image, torch.full_like(image, float("nan")))
    results = [
        run(loop, network, pixels, mask, [seeds + seed] * len(image))[-1].completed
        for pixels in (image, other)
    ]
    assert torch.equal(*results)


def pixel_by_pixel(inputs):
    """A network without sums over pixels, whose order may depend on the size of a batch."""
    image, initial, mask, uncertainty, time = inputs.split([3, 1, 1, 1, 1], dim=1)
    mean = image * 0.5 + mask * 0.25 - uncertainty * 0.125 + initial * 0.0625
    rows = torch.arange(mean.shape[2]).view(1, 1, -1, 1)
    columns = torch.arange(mean.shape[3]).view(1, 1, 1, -1)
    return mean + time * 0.5, mean * 4 - ((rows * 7 + columns * 3) % 11) * 0.5


@few
@given(problems())
def test_a_samples_result_does_not_depend_on_its_batch(problem):
    loop, _, image, mask, seed = problem
    seeds = [seed + index for index in range(len(image))]
    together = run(loop, pixel_by_pixel, image, mask, seeds)
    for index in range(len(image)):
        part = slice(index, index + 1)
        alone = run(loop, pixel_by_pixel, image[part], mask[part], seeds[part])
        for one, all_of_them in zip(alone, together, strict=True):
            assert torch.equal(one.completed, all_of_them.completed[part])
            assert torch.equal(one.state.image, all_of_them.state.image[part])
            assert torch.equal(one.state.mask, all_of_them.state.mask[part])
