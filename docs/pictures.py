"""Draw the pictures of the README and the pages from the tables in results/ that are part of this repository.

    python docs/pictures.py

The picture of the report is a page in Chromium, which has to be there, driven by the playwright of the extra `test`.
"""

import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image, PngImagePlugin

from dermsearch.results import Results, load
from dermsearch.results.pictures.figures import curriculum_figure, tree_figure
from dermsearch.results.report.report import report

HERE = Path(__file__).absolute().parent
STUDY = Path("results", "ham10000")  # what search_spaces/curriculum_ham10000.yaml came to
DRAWN = {"curriculum": curriculum_figure, "tree": tree_figure}


def report_picture(results: Results, path: Path) -> None:
    """The first screen of the report, that of the tables in its origin as every figure's."""
    from playwright import sync_api

    page = report(results.folder, path.with_suffix(".html"))
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        seen = browser.new_page(viewport={"width": 1100, "height": 1180}, color_scheme="light")
        seen.goto(page.absolute().as_uri())
        seen.wait_for_selector("html[data-drawn=yes]", state="attached")
        seen.screenshot(path=path)
        browser.close()
    about = PngImagePlugin.PngInfo()
    about.add_text("Source", results.origin)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, pnginfo=about, optimize=True
        )


if __name__ == "__main__":
    os.chdir(HERE.parent)  # the page tells where its tables lie
    results = load(STUDY)
    with tempfile.TemporaryDirectory() as place:
        for name, draw in DRAWN.items():
            picture, _ = draw(results, Path(place) / name)
            (HERE / f"{name}.png").write_bytes(picture.read_bytes())
        report_picture(results, Path(place) / "report.png")
        (HERE / "report.png").write_bytes((Path(place) / "report.png").read_bytes())
    print(*sorted(HERE.glob("*.png")), sep="\n")
