"""What a study's tables tell, with pandas alone: python examples/read_tables.py FOLDER"""

import sys

from dermsearch.results import load

results = load(sys.argv[1])

# Every protocol's mean over the labels on validation cases, one row per curriculum.
scores = results.pandas("scores").query("split == 'val' and label == 'mean' and metric == 'auc'")
print(scores.pivot_table(index="curriculum", columns="protocol", values="value").round(3), end="\n\n")

# How far each lies above no pre-training, seed by seed.
values = scores.pivot_table(index=["protocol", "seed"], columns="curriculum", values="value")
print(values.sub(values["no pre-training"], axis=0).round(3).T, end="\n\n")

# Does the loss fall, and do embeddings stay spread out (1: as at random, 0: collapsed)?
epochs = results.pandas("epochs").groupby("curriculum")
print(epochs[["loss", "embedding_std"]].agg(["first", "last"]).round(3), end="\n\n")

# Where the time went.
stages = results.pandas("stages").query("status == 'done'")
print(stages.groupby("task")["seconds"].describe()[["count", "mean", "max"]].round(1))
