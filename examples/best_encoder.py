"""A study's best encoder in timm, seeing a folder of images: python examples/best_encoder.py FOLDER IMAGES"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

from dermsearch.results import load

results, images = load(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.[jp][pn]g"))
study, by = results.study, results.study["objective"]
scores = results.pandas("scores").query("split == 'val' and curriculum != 'no pre-training'")
scores = scores.query("protocol == @by['protocol'] and metric == @by['metric'] and label == @by['label']")
best = scores.nlargest(1, "value").iloc[0]

# `backbones.shared`, or one per modality: backbones.derm, backbones.clinic
state = load_file(Path(study["compute"]["store"]) / "stages" / best.stage / "encoders.safetensors")
own = {name.removeprefix("backbones.shared."): tensor for name, tensor in state.items()}
model = timm.create_model(study["encoder"]["name"], num_classes=0).eval()
model.load_state_dict(own)

size = study["data"]["size"]
scale, centre = v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
see = v2.Compose([v2.PILToTensor(), v2.Resize((size, size)), scale, centre])
with torch.inference_mode():
    features = model(torch.stack([see(Image.open(path).convert("RGB")) for path in images])).numpy()
np.save("features.npy", features)
print(f"{best.curriculum}: {features.shape[1]} features of {len(images)} images in features.npy")
