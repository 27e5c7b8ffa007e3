"""All comparison systems in one run, one of which diverges: it is a failed judgement, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dermsearch.results import load

pytestmark = pytest.mark.slow
SYSTEMS = ("inception_combined", "hccnn", "giin", "amfam", "fusion_m4net", "fusion_m4net_svm")
TINY = [
    *("--quick", "data.own.cases=60", "data.own.size=32", "data.common.cases=60", "data.common.size=32"),
    *("encoder.name=resnet10t", "compute.engine=inline", "curriculum.tasks.ssd_kd.epochs=3"),
    *(
        "curriculum.tasks.paired_contrast.epochs=1",
        "curriculum.tasks.pseudo_labels.epochs=1",
        "curriculum.length=[1,1]",
    ),
    *("curriculum.tasks.pseudo_labels.batch=16", "curriculum.tasks.paired_contrast.batch=16"),
    *(f"downstream.{name}@{data}.epochs=1" for name in (*SYSTEMS, "baseline") for data in ("own", "common")),
    *("downstream.finetune@own.epochs=1", "downstream.linear_handover@own.epochs=1", "downstream.linear@own.c=0.1"),
]


def test_the_table_of_all_systems(tmp_path: Path) -> None:
    # A rate beyond all bounds: AdamW moves every weight by it in one step.
    words = [*TINY, "downstream.hccnn@common.lr=10.0", "downstream.hccnn@common.epochs=6"]
    command = [sys.executable, "-m", "dermsearch", "run", "sm3_table1", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=1500)
    assert done.returncode in (0, 3), done.stderr
    said = json.loads(done.stdout)
    assert said["stages"]["failed"] == 0, "what fails is a judgement"
    folder = tmp_path / "results" / "sm3_table1-quick"
    results = load(folder)
    judged = results.pandas("judgements")
    failed = judged[judged.status == "failed"]
    assert set(zip(failed.protocol, failed.data, strict=True)) <= {("hccnn", "common")}, set(failed.reason)
    assert {*judged.protocol} >= {*SYSTEMS, "baseline", "metadata_only"}
    table = (folder / "tables_of_paper" / "sm3_table1.md").read_text()
    for title in ("HcCNN (D)", "GIIN, common recipe (E)", "F4M, both stages (A)", "metadata only", "SSD-KD (A)"):
        assert f"| {title} " in table
    gains = table[table.index("**AUC above the baseline**") :]
    assert "| GIIN (E) " in gains and "| here" in gains
    endings = {".csv", ".md", ".tex", ".png", ".svg"}
    assert {p.suffix for p in (folder / "tables_of_paper").iterdir()} == endings
