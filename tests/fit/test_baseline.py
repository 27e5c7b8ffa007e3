"""The baseline is both images' features side by side."""

import torch
from fit import pairs

from dermsearch.fit.baseline import BaselineNetwork


def test_it_is_linear_in_both_images():
    network, d, c = BaselineNetwork(pairs.TINY), pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1)
    (logits, *_) = network(d, c, torch.empty(4, 0)).groups["dc"]
    head = network.heads[0]
    torch.testing.assert_close(logits, d.features @ head.weight.T[:96] + c.features @ head.weight.T[96:] + head.bias)
