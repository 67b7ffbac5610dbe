import torch

from sdm_lightning.metrics.hashes import pixel_hashes, row_hashes


def test_hashes_depend_on_content_and_shape_alone():
    assert row_hashes(["a", b"a"]).unique().numel() == 1
    assert row_hashes(["a", "b"]).unique().numel() == 2
    wide, tall = torch.zeros(1, 3, 2, 8), torch.zeros(1, 3, 8, 2)
    assert pixel_hashes(wide) == pixel_hashes(wide.clone())
    assert pixel_hashes(wide) != pixel_hashes(tall)
    changed = wide.clone()
    changed[0, 2, 1, 7] = 1
    assert pixel_hashes(wide) != pixel_hashes(changed)
