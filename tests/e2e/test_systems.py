"""All comparison systems in one run, one of which cannot be trained: a failed judgement, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import warm
import yaml

from dermsearch.results import load

pytestmark = pytest.mark.slow
SYSTEMS = ("baseline", "inception_combined", "hccnn", "giin", "amfam", "fusion_m4net", "fusion_m4net_svm")
CASES = {"cases": 60, "size": 32, "modalities": ["derm", "clinic"]}
SHORT = {"epochs": 1, "batch": 16, "lr": 1e-3}
STUDY = {
    "name": "systems",
    "published": "sm3_table1",
    "data": {"own": CASES, "common": CASES},
    "encoder": {"name": "test_resnet", "branches": "separate"},
    "curriculum": {"length": [1, 1], "tasks": {"ssd_kd": {"epochs": 4, "teaching": 0.5, "rotating": 0.25, "lr": 0.01}}},
    "train": {"batch": 16},
    "downstream": {
        **{f"{name}@own": SHORT for name in SYSTEMS},
        "baseline@common": {**SHORT, "recipe": "common"},
        "giin@common": {**SHORT, "recipe": "common", "stride": 8},
        "hccnn@common": {**SHORT, "epochs": 2, "lr": 10.0, "recipe": "common"},  # a rate beyond all bounds
        "linear@own": {"c": 0.1},
        "metadata_only@own": {"c": 0.1},
        "majority@own": {},
    },
    "objective": {"protocol": "baseline@own", "metric": "named_auc", "label": "mean"},
    "compute": {"engine": "inline"},
    "logging": [],
}


def test_the_table_of_all_systems(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(STUDY)), sort_keys=False))
    done = warm.run(["run", "study.yaml", "--json"], tmp_path, timeout=1500)
    assert done.returncode in (0, 3), done.stderr
    said = json.loads(done.stdout)
    assert (said["stages"]["trained"], said["stages"]["failed"]) == (1, 0), "what fails is a judgement"
    folder = tmp_path / said["results"]
    judged = load(folder).pandas("judgements")
    failed = judged[judged.status == "failed"]
    assert set(zip(failed.protocol, failed.data, strict=True)) <= {("hccnn", "common")}, set(failed.reason)
    assert {*judged.protocol} == {*SYSTEMS, "linear", "metadata_only", "majority"}
    table = (folder / "tables_of_paper" / "sm3_table1.md").read_text()
    for title in ("HcCNN (D)", "GIIN, common recipe (E)", "F4M, both stages (A)", "metadata only", "SSD-KD (A)"):
        assert f"| {title} " in table
    gains = table[table.index("**AUC above the baseline**") :]
    assert "| GIIN (E) " in gains and "| here " in gains
    assert {p.suffix for p in (folder / "tables_of_paper").iterdir()} == {".csv", ".md", ".tex", ".png", ".svg"}
