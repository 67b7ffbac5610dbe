"""Eq. 6 held to its explicit form, value and gradient."""

import math

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.models import AttentionBlock, UncertaintyBias
from sdm_lightning.models.attention import _biased_attention, biased_attention


def explicit(query, key, value, bias):
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (logits + bias[:, None, None, :]).softmax(dim=-1) @ value


@pytest.mark.parametrize("width", [8, 13, 31, 64])
def test_value_and_gradient_equal_the_explicit_softmax(width):
    torch.manual_seed(0)
    arguments = [torch.randn(2, 3, 20, width, requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 20, requires_grad=True)
    with torch.no_grad():
        bias.mul_(3.0)
    arguments.append(bias)
    actual, expected = biased_attention(*arguments), explicit(*arguments)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    weighting = torch.randn_like(actual)
    for ours, reference in zip(
        torch.autograd.grad((actual * weighting).sum(), arguments),
        torch.autograd.grad((expected * weighting).sum(), arguments),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_plain_attention_without_bias():
    arguments = [torch.randn(2, 3, 20, 16) for _ in range(3)]
    expected = explicit(*arguments, torch.zeros(2, 20))
    torch.testing.assert_close(biased_attention(*arguments, None), expected, atol=1e-5, rtol=1e-5)


def test_half_precision_keeps_the_bias_in_two_parts():
    """As on a GPU: one bfloat16 channel would round a bias of 20 by up to 0.06."""
    torch.manual_seed(0)
    arguments = [torch.randn(2, 3, 20, 13).bfloat16() for _ in range(3)]
    bias = 20.0 + torch.randn(2, 20)
    expected = explicit(*(argument.float() for argument in arguments), bias)
    actual = _biased_attention(*arguments, bias).float()
    torch.testing.assert_close(actual, expected, atol=0.01, rtol=0.01)


def test_bias_does_not_lose_precision_under_autocast():
    torch.manual_seed(0)
    arguments = [torch.randn(2, 2, 30, 16).bfloat16() for _ in range(3)]
    bias = torch.randn(2, 30) * 5.0
    with torch.autocast("cpu", torch.bfloat16):
        actual = biased_attention(*arguments, bias)
    expected = explicit(*(argument.float() for argument in arguments), bias)
    torch.testing.assert_close(actual.float(), expected, atol=1e-4, rtol=1e-4)


def test_uncertainty_bias_is_four_convolutions_of_three_by_three():
    bias = UncertaintyBias(8)
    kernels = [tuple(layer.weight.shape) for layer in bias.layers]
    assert kernels == [(8, 1, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (1, 8, 3, 3)]
    assert bias(torch.rand(2, 1, 4, 6)).shape == (2, 24)


def block_reference(block, x, uncertainty):
    """The block by its definition, with matrices in place of convolutions."""
    batch, channels = x.shape[:2]
    pixels = x.flatten(2).transpose(1, 2)
    normalized = pixels / (pixels.square().mean(dim=-1, keepdim=True) + 1e-8).sqrt()
    scale = 1.0 / math.sqrt(channels)
    qkv = normalized @ (block.to_qkv.weight[:, :, 0, 0] * scale).t()
    heads = [
        part.reshape(batch, -1, block.num_heads, channels // block.num_heads).transpose(1, 2)
        for part in qkv.chunk(3, dim=-1)
    ]
    y = explicit(*heads, block.bias(uncertainty)).transpose(1, 2).reshape(pixels.shape)
    y = y @ (block.to_output.weight[:, :, 0, 0] * scale).t() + block.to_output.bias
    return x + y.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_block_equals_its_definition(memory_format):
    torch.manual_seed(0)
    block = AttentionBlock(16, num_heads=4, bias_channels=8)
    x = torch.randn(2, 16, 4, 6).contiguous(memory_format=memory_format)
    uncertainty = torch.rand(2, 1, 4, 6)
    expected = block_reference(block, x, uncertainty)
    torch.testing.assert_close(block(x, uncertainty), expected, atol=1e-5, rtol=1e-5)


def test_a_pixel_of_hopeless_bias_is_not_attended_to():
    query, key, value = (torch.randn(1, 2, 9, 8) for _ in range(3))
    bias = torch.zeros(1, 9)
    bias[0, 4] = -1e4
    without = [torch.cat([part[:, :, :4], part[:, :, 5:]], dim=2) for part in (key, value)]
    expected = explicit(query, *without, torch.zeros(1, 8))
    torch.testing.assert_close(
        biased_attention(query, key, value, bias), expected, atol=1e-5, rtol=1e-4
    )


def test_unguided_block_ignores_the_uncertainty():
    block = AttentionBlock(16, num_heads=2, uncertainty_guided=False)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(block(x, torch.zeros(1, 1, 4, 4)), block(x, torch.ones(1, 1, 4, 4)))
    guided = AttentionBlock(16, num_heads=2)
    ramp = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)
    assert not torch.allclose(guided(x, torch.zeros(1, 1, 4, 4)), guided(x, ramp))


def test_heads_must_divide_the_channels():
    with pytest.raises(InputError, match="attention_heads: 5 heads do not divide 16 channels"):
        AttentionBlock(16, num_heads=5)
