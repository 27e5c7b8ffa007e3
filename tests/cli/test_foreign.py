"""A foreign encoder's whole way by commands: judged, exported, its fit exported, its predictions written."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.csv as pcsv
import pytest
import yaml
from conftest_search import make_study
from made_hub import Fill
from made_hub import fill as fill
from PIL import Image
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.errors import UserError


def run(*words: object) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_from_the_hub_to_predictions(fill: Fill, tmp_path: Path) -> None:
    fill("timm/resnet18.a1_in1k", network="resnet18")
    study = make_study(
        data={"cases": 60, "size": 32},
        encoder={"name": "resnet18"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        downstream={"finetune": {"epochs": 1, "batch": 16}},
        objective={"protocol": "finetune", "metric": "auc", "label": "mean"},
        compute={"engine": "inline", "store": str(tmp_path / "store")},
        logging=[],
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    out = tmp_path / "judged"
    said = run("judge", "imagenet", "--study", tmp_path / "mine.yaml", "--set", "search.seeds=[3]", "--out", out)
    (line,) = (line for line in said.splitlines() if " imagenet " in line and " ± " in line)
    assert line.split()[1] == "imagenet" and "random: no pre-training" in said, "what weights are above random ones"
    assert re.search(r"(1|[Nn]one) of 1 encoder is above no pre-training", said)
    opened = run("test", out)
    assert "was opened once" in opened and " imagenet " in opened and "random: no pre-training" in opened
    named = ["--curriculum", "imagenet"]
    for form, file in (("timm", "model.safetensors"), ("torchvision", "model.safetensors")):
        folder = tmp_path / form
        assert run("export", out, "-o", folder, "--format", form, *named).split() == [str(folder)]
        assert (folder / file).is_file() and f'"format": "{form}"' in (folder / "config.json").read_text()
    run("export", out, "-o", tmp_path / "fit", "--fit", "finetune", *named)
    Image.new("RGB", (50, 40), (200, 100, 90)).save(tmp_path / "one.png")
    said = run("predict", tmp_path / "fit", tmp_path / "one.png", "-o", tmp_path / "said.csv")
    assert said.endswith("said.csv: 1 rows\n") and "diagnosis: MEL" in pcsv.read_csv(tmp_path / "said.csv").column_names
    with pytest.raises(UserError, match="goes with encoders"):
        run("export", out, "-o", tmp_path / "x", "--fit", "finetune", "--format", "onnx", *named)
    with pytest.raises(UserError, match="predict"):
        run("embed", tmp_path / "fit", tmp_path / "one.png", "-o", tmp_path / "x.parquet")
