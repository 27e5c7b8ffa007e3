"""Fine-tune an exported encoder, with timm and torch alone: python examples/fine_tune.py MODEL PICTURES [random]

PICTURES has train/ and val/ with a folder for each class in them; `random` begins from random weights instead.
"""

import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

model, pictures = sys.argv[1:3]
torch.manual_seed(0)
network = timm.create_model(f"local-dir:{model}", pretrained="random" not in sys.argv)
see = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
classes = sorted(folder.name for folder in Path(pictures, "train").iterdir())
network.reset_classifier(len(classes))


def read(split):
    paths = sorted(Path(pictures, split).glob("*/*.[jp][pn]g"))
    seen = torch.stack([see(Image.open(path).convert("RGB")) for path in paths])
    return seen, torch.tensor([classes.index(path.parent.name) for path in paths])


(x, y), (x_val, y_val) = read("train"), read("val")
criterion = torch.nn.CrossEntropyLoss(len(y) / (len(classes) * y.bincount(minlength=len(classes))))
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.01)
for _epoch in range(10):
    for some in torch.randperm(len(x)).split(16)[: max(1, len(x) // 16)]:  # whole batches
        mirrored = torch.where(torch.rand(len(some), 1, 1, 1) < 0.5, x[some], x[some].flip(-1))
        optimizer.zero_grad()
        criterion(network.train()(mirrored), y[some]).backward()
        optimizer.step()
with torch.inference_mode():
    said = network.eval()(x_val).argmax(1)
print(f"balanced accuracy {balanced_accuracy_score(y_val, said):.3f} of {len(y_val)} pictures")
