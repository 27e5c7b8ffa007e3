"""A map of pictures by their features, in one HTML file: python examples/map.py FEATURES [-o map.html]

FEATURES comes of `dermsearch embed MODEL PICTURES -o features.parquet`. By UMAP if it is installed, else by PCA.
"""

import argparse
import base64
import html
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from sklearn.decomposition import PCA

asked = argparse.ArgumentParser()
asked.add_argument("features")
asked.add_argument("-o", "--output", default="map.html", type=Path)
given = asked.parse_args()
table = pd.read_parquet(given.features)
x = np.stack(table["embedding"].to_numpy())
try:
    from umap import UMAP

    way, places = "UMAP", UMAP(random_state=0, n_jobs=1).fit_transform(x)
except ImportError:
    way, places = "PCA", PCA(2, random_state=0).fit_transform(x)
places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9) * 92  # in percent of the page
drawn = []
for path, (left, top) in zip(table["image"], places, strict=True):
    file = io.BytesIO()
    ImageOps.contain(Image.open(path).convert("RGB"), (48, 48)).save(file, "JPEG")
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    drawn.append(f'<img src="{source}" title="{html.escape(path)}" style="left:{left:.2f}%;top:{top:.2f}%">')
about = f"{len(table)} pictures by {way} of their features: neighbours look alike to the encoder; hover to enlarge"
style = "p{position:fixed;bottom:0;margin:4px;font:13px sans-serif}"
style += "img{position:absolute;width:4%;border-radius:4px}img:hover{width:12%;z-index:9}"
head = f"<!doctype html><meta charset=utf-8><title>{way}</title><style>{style}</style>"
given.output.write_text("".join([head, *drawn, f"<p>{about}</p>"]), encoding="utf-8")
print(f"{given.output}: {len(table)} pictures, {way}")
