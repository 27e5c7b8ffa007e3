"""Block masks: how many, how much, which shape, and that a mask is its unit's alone."""

import numpy as np
import pytest
from scipy import stats

from dermsearch.data.views.blockmask import BlockMask, masks
from dermsearch.numbers import uniforms


def drawn(blocks: BlockMask, n: int = 600, seed: int = 0) -> np.ndarray:
    return masks(blocks, uniforms(seed, 0, np.arange(n), "masks", BlockMask.numbers))


@pytest.mark.parametrize("height, width", [(14, 14), (6, 6), (8, 20)])
def test_share_is_as_declared_and_never_more(height, width):
    found = drawn(BlockMask(height, width))
    share = found.mean((1, 2))
    assert found.shape == (600, height, width) and found.dtype == bool
    assert (share > 0).mean() == pytest.approx(0.5, abs=0.06)
    assert share.max() <= 0.5
    masked = share[share > 0]
    assert masked.mean() == pytest.approx(0.3, abs=0.04)
    if height == width == 14:
        assert stats.kstest(masked, "uniform", (0.1, 0.4)).pvalue > 1e-3


def test_none_and_all():
    assert not drawn(BlockMask(14, 14, chance=0.0)).any()
    assert drawn(BlockMask(14, 14, chance=1.0)).any((1, 2)).all()
    found = drawn(BlockMask(10, 10, chance=1.0, share=(0.3, 0.3)))
    assert np.median(found.sum((1, 2))) == 30 and found.sum((1, 2)).max() == 30


def test_masks_are_blocks():
    """Far fewer hidden patches have a seen neighbour than if they were strewn."""
    found = drawn(BlockMask(14, 14, chance=1.0, share=(0.3, 0.3)))
    edges = (found[:, 1:] != found[:, :-1]).mean() + (found[:, :, 1:] != found[:, :, :-1]).mean()
    assert edges < 0.5 * 2 * (2 * 0.3 * 0.7)


def test_a_mask_depends_on_its_own_numbers_alone():
    u = uniforms(3, 1, np.arange(50), "masks", BlockMask.numbers)
    blocks, whole = BlockMask(14, 14), masks(BlockMask(14, 14), u)
    order = np.random.default_rng(0).permutation(50)[:20]
    assert np.array_equal(masks(blocks, u[order]), whole[order])
    assert not np.array_equal(drawn(blocks, 50, seed=1), drawn(blocks, 50))
    assert len({m.tobytes() for m in whole if m.any()}) == sum(m.any() for m in whole)


@pytest.mark.parametrize("height, width", [(1, 1), (2, 2), (1, 9)])
def test_small_grids(height, width):
    assert drawn(BlockMask(height, width, chance=1.0)).mean((1, 2)).max() <= 0.5
