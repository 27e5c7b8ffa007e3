"""A GPU that is not there: it refuses what a real one refuses, and comes to what the CPU comes to."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from dermsearch.evaluate.base import Given, configure
from dermsearch.evaluate.handover import LinearHandover
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import chance
from dermsearch.testing import evaluators
from dermsearch.testing.pretended import pretended_gpu
from dermsearch.testing.small import CPU, ROWS, SIZE, make_store
from dermsearch.testing.waits import Copies
from dermsearch.work.features import extract


def test_what_lies_on_the_host_is_refused_and_numbers_can_be_read():
    host = torch.arange(6.0).view(2, 3)
    with pretended_gpu() as device:
        there = host.to(device)
        assert there.is_cuda and there.device == device and (there * 2).is_cuda
        with pytest.raises(RuntimeError, match=r"^add: one of its tensors lies on the host"):
            there + host
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert float(there.sum()) == 15 and (there > 2).nonzero().is_cuda
        there[0, 0] = 7
        there += torch.ones((), device=device)
        assert torch.equal(there.cpu(), torch.tensor([[8.0, 2, 3], [4, 5, 6]]))
        assert torch.equal((there * torch.tensor(2.0)).cpu(), 2 * there.cpu()), "a number may come from the host"
        with torch.autocast("cuda", torch.bfloat16):
            assert (there @ there.T).dtype == torch.bfloat16


def test_numbers_behind_dropout_are_the_hosts():
    """By the way that a GPU takes: all rows at once."""
    host = chance(-5, range(3, 600), 513)
    with pretended_gpu() as device:
        there = chance(-5, range(3, 600), 513, device)
        assert there.is_cuda and torch.equal(there.cpu(), host)


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_features_are_those_of_the_cpu(network, tmp_path):
    store, made = make_store(tmp_path / "store"), Encoders.random(network, ("derm", "clinic"), "separate", 3)
    data = SimpleNamespace(modalities=("derm", "clinic"), size=SIZE, border=0.0, normalise="imagenet")
    plain = extract(made, store, data, ROWS, CPU, "fp32", batch=20)
    with pretended_gpu() as device:
        there = extract(made.to(device), store, data, ROWS, device, "fp32", batch=20)
        with pytest.raises(RuntimeError, match="lies on the host"):
            extract(made, store, data, ROWS, CPU, "fp32")
    np.testing.assert_allclose(there, plain, rtol=1e-5, atol=1e-5)
    assert plain.shape == (48, 2 * made.dim) and np.ptp(plain) > 0


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_features_leave_the_device_all_at_once(network, tmp_path):
    """However many batches there are, the host waits for a GPU as often as for one."""
    store, made = make_store(tmp_path / "store"), Encoders.random(network, ("derm", "clinic"), "separate", 3)
    data = SimpleNamespace(modalities=("derm", "clinic"), size=SIZE, border=0.0, normalise="imagenet")
    waited, features = [], []
    with pretended_gpu() as device:
        made.to(device)
        for batch in (8, 48):
            with Copies() as copies:
                features.append(extract(made, store, data, ROWS, device, "bf16", batch=batch))
            waited.append(copies.waited)
    assert waited[0] == waited[1]
    assert np.abs(features[0] - features[1]).max() < 0.1 * np.ptp(features[0])
    plain = extract(Encoders.random(network, made.modalities, "separate", 3), store, data, ROWS, CPU, "fp32")
    assert 0 < np.abs(features[0] - plain).max() < 0.1 * np.ptp(plain), "coarser, and the same"


def test_heads_are_trained_where_the_images_are(tmp_path: Path):
    features, images = evaluators.features_of(), evaluators.images_of(tmp_path)
    config = configure("linear_handover", {"epochs": 2})

    def told(device: torch.device) -> dict[str, np.ndarray]:
        given = Given(features.blind(), {}, SimpleNamespace(device=device))
        return LinearHandover().predict(given, config, 3)

    with patch.object(Tensor, "backward", lambda loss: None):
        plain = told(images.device)
    with pretended_gpu() as device:
        there = told(device)
    assert all(np.array_equal(there[label], plain[label]) for label in plain) and plain.keys() == {"diagnosis", "veil"}
