"""A map of pictures by their features, in one HTML file: python examples/map.py FEATURES [-o map.html]

FEATURES comes of `dermsearch embed MODEL PICTURES -o features.parquet`. By UMAP if it is installed, else by PCA.
"""

import argparse
import base64
import html
import io

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA

asked = argparse.ArgumentParser()
asked.add_argument("features")
asked.add_argument("-o", "--output", default="map.html")
given = asked.parse_args()
table = pd.read_parquet(given.features)
x = np.stack(table["embedding"].to_numpy())
try:
    from umap import UMAP

    way, places = "UMAP", UMAP(random_state=0).fit_transform(x)
except ImportError:
    way, places = "PCA", PCA(2, random_state=0).fit_transform(x)
places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9) * 92  # in percent of the page
drawn = []
for path, (left, top) in zip(table["image"], places, strict=True):
    picture, file = Image.open(path).convert("RGB"), io.BytesIO()
    picture.thumbnail((48, 48))
    picture.save(file, "JPEG")
    data, name = base64.b64encode(file.getvalue()).decode(), html.escape(path, quote=True)
    drawn.append(f'<img src="data:image/jpeg;base64,{data}" title="{name}" style="left:{left:.2f}%;top:{top:.2f}%">')
style = "img{position:absolute;width:4%;border-radius:4px}img:hover{width:12%;z-index:9}"
page = f"<!doctype html><meta charset=utf-8><title>{way}</title><style>{style}</style>{''.join(drawn)}"
open(given.output, "w", encoding="utf-8").write(page)
print(f"{given.output}: {len(table)} pictures, {way}")
