"""Draw the README's pictures from the tables in results/ that are part of this repository: python docs/pictures.py"""

import tempfile
from pathlib import Path

from dermsearch.results import load
from dermsearch.results.pictures.figures import curriculum_figure, tree_figure

HERE = Path(__file__).parent
STUDY = HERE.parent / "results" / "ham10000"  # what search_spaces/curriculum_ham10000.yaml came to
DRAWN = {"curriculum": curriculum_figure, "tree": tree_figure}

if __name__ == "__main__":
    results = load(STUDY)
    with tempfile.TemporaryDirectory() as place:
        for name, draw in DRAWN.items():
            picture, _ = draw(results, Path(place) / name)
            (HERE / f"{name}.png").write_bytes(picture.read_bytes())
            print(HERE / f"{name}.png")
