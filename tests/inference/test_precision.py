"""When convolutions run in bfloat16."""

import pytest
import torch

from sdm_lightning.inference.precision import wants_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_auto_follows_the_processor(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert wants_bfloat16("auto", CPU) is supported
    assert not wants_bfloat16("32-true", CPU)
    assert wants_bfloat16("bf16-mixed", CPU)


def test_auto_without_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert not wants_bfloat16("auto", CPU)
    assert not wants_bfloat16("auto", torch.device("mps"))
