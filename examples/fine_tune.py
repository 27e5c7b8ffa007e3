"""Fine-tune an exported encoder, with timm and torch alone: python examples/fine_tune.py MODEL PICTURES [SEEDS]

PICTURES has train/ and val/ with a folder for each class in them. The same is done from random weights, with as many
seeds, and the difference comes with the interval that pictures drawn anew would give it (95 %).
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

model, pictures, seeds = sys.argv[1], Path(sys.argv[2]), range(int(sys.argv[3]) if len(sys.argv) > 3 else 3)
classes = sorted(folder.name for folder in (pictures / "train").iterdir())


def start(pretrained):
    return timm.create_model(f"local-dir:{model}", pretrained=pretrained, num_classes=len(classes))


def read(split):
    see = timm.data.create_transform(**timm.data.resolve_model_data_config(start(False)), is_training=False)
    paths = sorted(path for path in (pictures / split).glob("*/*") if path.suffix.lower() in (".jpg", ".png"))
    seen = torch.stack([see(Image.open(path).convert("RGB")) for path in paths])
    return seen, torch.tensor([classes.index(path.parent.name) for path in paths])


def tuned(pretrained, seed):
    """What the network says of the pictures of val when it has learnt those of train."""
    torch.manual_seed(seed)
    network = start(pretrained)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    for _epoch in range(30):
        for some in torch.randperm(len(x)).split(32)[: max(1, len(x) // 32)]:  # whole batches
            mirrored = torch.where(torch.rand(len(some), 1, 1, 1) < 0.5, x[some], x[some].flip(-1))
            optimizer.zero_grad()
            criterion(network.train()(mirrored), y[some]).backward()
            optimizer.step()
    with torch.inference_mode():
        return torch.cat([network.eval()(some).argmax(1) for some in x_val.split(256)])


def balanced(said, rows):
    """The mean over classes of the share that is right, for the pictures of these rows."""
    truth, right = y_val[rows], (said == y_val)[rows]
    return np.mean([right[truth == c].double().mean() for c in truth.unique()])


(x, y), (x_val, y_val) = read("train"), read("val")
criterion = torch.nn.CrossEntropyLoss(len(y) / (len(classes) * y.bincount(minlength=len(classes))))
given, random = ([tuned(pretrained, seed) for seed in seeds] for pretrained in (True, False))
draw = np.random.default_rng(0)
everyone, draws = np.arange(len(y_val)), [draw.integers(0, len(y_val), len(y_val)) for _ in range(1000)]
above = [np.mean([balanced(a, rows) - balanced(b, rows) for a, b in zip(given, random, strict=True)]) for rows in draws]
one, other = (np.mean([balanced(said, everyone) for said in each]) for each in (given, random))
low, high = np.quantile(above, [0.025, 0.975])
print(f"balanced accuracy {one:.3f}, from random weights {other:.3f}, of {len(y_val)} pictures")
print(f"difference {one - other:+.3f} [{low:+.3f}, {high:+.3f}]")
