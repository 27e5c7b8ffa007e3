"""Sort photographs into folders of alike ones: python examples/cluster_photographs.py FEATURES [GROUPS] [-o FOLDER]

FEATURES comes of `dermsearch embed MODEL PHOTOGRAPHS -o features.parquet`. Nothing is moved: the folders hold links.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

asked = argparse.ArgumentParser()
asked.add_argument("features")
asked.add_argument("groups", nargs="?", type=int, help="default: the number of 2 to 10 that parts them best")
asked.add_argument("-o", "--output", default="groups", type=Path)
given = asked.parse_args()

table = pd.read_parquet(given.features)
x = np.stack(table["embedding"].to_numpy())
x /= np.linalg.norm(x, axis=1, keepdims=True)  # alike is a small angle
counts = [given.groups] if given.groups else range(2, min(11, len(x)))
parted = {k: KMeans(k, n_init=10, random_state=0).fit(x) for k in counts}
best = given.groups or max(parted, key=lambda k: silhouette_score(x, parted[k].labels_))
chosen = parted[best]
middle = np.linalg.norm(x - chosen.cluster_centers_[chosen.labels_], axis=1)

for group in range(best):
    folder = given.output / f"group_{group}"
    folder.mkdir(parents=True)
    members = np.flatnonzero(chosen.labels_ == group)
    for place, row in enumerate(members[middle[members].argsort()]):  # the most typical first
        picture = Path(table["image"][row])
        (folder / f"{place:04d}_{picture.name}").symlink_to(picture.resolve())
    print(f"{folder}: {len(members)} pictures, most typical {table['image'][members[middle[members].argmin()]]}")
