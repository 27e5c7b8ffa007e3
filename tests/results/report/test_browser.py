"""The page in a browser: no error, tree, sort, filter, hover, click, keyboard, themes, print, and a run's life."""

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import warm
from e2e.tiny import TINY
from playwright import sync_api
from results.report.conftest import HOSTILE, STUDY, TASK

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.report.page import put, tail
from dermsearch.results.report.report import report, study_page
from dermsearch.results.tables.schema import build, write

RESULTS = Path(__file__).parents[3] / "results"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Open a page until all is drawn; at the end nothing may have been said on the console, nor fetched."""
    said, pages = [], []

    def open_page(path, later=0, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(200_000)  # of a machine with much else to do
        if later:
            page.clock.set_fixed_time(time.time() + later)
        pages.append(page)
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: said.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
        page.goto(path.absolute().as_uri())
        page.wait_for_selector("html[data-drawn=yes]", state="attached")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


def test_a_reader_walks_through(look, make_filled):
    results = make_filled(study=STUDY, seeds=(0, 1), failed={"moco_v2 > odc": "failed"})
    page = look(report(results.folder), color_scheme="light")
    lines = page.locator("#tree-table tbody tr")
    whole = lines.count()
    assert whole == 16 and page.locator(".chart svg").count() == page.locator(".chart").count() > 5
    page.click("#tree-tools button >> nth=0")
    assert page.locator("#tree-table tbody tr:visible").count() == 4
    lines.first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert page.locator("dialog h2").inner_text() == "relative_location > moco_v2"
    page.wait_for_selector("dialog .chart svg")
    told = page.locator("dialog pre").inner_text()
    assert "dermsearch export" in told and 'model = timm.create_model("local-dir:encoder", pretrained=True)' in told
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert "lr = 0.03" in lines.nth(1).get_attribute("title")

    column = lambda n: page.locator(f"#board-table tbody td:nth-child({n})").all_inner_texts()  # noqa: E731
    scores = [float(text.split()[0]) for text in column(5) if text]
    assert scores == sorted(scores, reverse=True)
    page.click("[data-sort='3']")
    page.click("[data-sort='3']")
    scores = [float(text.split()[0]) for text in column(5) if text]
    assert scores == sorted(scores) and page.locator("th[aria-sort=ascending]").count() == 1
    page.fill("#board-filter", "odc > moco")
    assert all("odc > moco_v2" in text for text in column(2)) and 0 < len(column(2)) < 5
    page.select_option("#board-metric", "macro F1")
    assert "macro f1" in page.locator("#board-notes").inner_text()
    page.locator("#board-table tbody tr").first.click()
    assert page.locator("dialog").is_visible()
    page.click("#close")

    mark = page.locator("#chart-cost .mark-symbol path").nth(3)
    mark.scroll_into_view_if_needed()
    mark.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    mark.click()
    assert page.locator("dialog").is_visible()
    page.click("#close")
    assert page.locator("#confusion-table td").first.inner_text() == "50"
    page.click("summary:has-text('The study file')")
    assert "resnet10t" in page.locator("#study-file").inner_text()


def test_a_part_of_the_tree_is_looked_at_alone(look, make_filled):
    """By the page behind a stage, or by a key; what leads to it stays, and the axis is of what is shown."""
    page = look(report(make_filled(study=STUDY, seeds=(0, 1)).folder))
    shown = page.locator("#tree-table tbody tr:visible")
    whole, axis = shown.count(), page.locator("#tree-table .scale").inner_text()
    page.click("#tree-table tbody tr >> nth=1")
    page.click("#zoom")
    assert not page.locator("dialog").is_visible()
    named = [text.strip() for text in page.locator("#tree-table tbody tr td:first-child").all_inner_texts()]
    assert (
        named[0].endswith("no pre-training") and named[1].endswith("relative_location") and 3 < len(named) < whole / 2
    )
    assert "Only what goes through relative_location" in page.locator("#tree-tools").inner_text()
    assert page.locator("#tree-table .scale").inner_text() != axis
    page.reload()
    page.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert shown.count() == len(named), "as the reader left it"
    page.click("#whole-tree")
    assert shown.count() == whole and page.locator("#tree-table .scale").inner_text() == axis
    page.locator("#tree-table tbody tr").nth(1).focus()
    page.keyboard.press("z")
    assert shown.count() == len(named)
    page.locator("#tree-table tbody tr").nth(1).focus()
    page.keyboard.press("Escape")
    assert shown.count() == whole


# Pairs of words in a picture of which one lies over the other, but for a hair's breadth.
COVERED = """() => [...document.querySelectorAll(".chart svg")].flatMap((svg) => {
  const words = [...svg.querySelectorAll("text")].filter((t) => t.textContent.trim() && +getComputedStyle(t).opacity)
    .map((t) => [t.textContent, t.getBoundingClientRect()]);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
  return words.flatMap(([a, x], i) => words.slice(i + 1).filter(([, y]) => over(x, y)).map(([b]) => `${a} | ${b}`));
})"""


@pytest.mark.parametrize("name", ["first_run", "ham10000"])
def test_the_tables_of_this_repository(look, name, tmp_path):
    """Their pages hold what the leaderboard prints."""
    folder = RESULTS / name
    rows = leaderboard(load(folder))
    page = look(report(folder, tmp_path / "report.html"))
    assert page.locator("#tree-table tbody tr").count() == len(rows) >= 5
    lines = page.locator("#board-table tbody tr").all_inner_texts()
    for row, line in zip(rows, lines, strict=True):
        assert row.name in line and f"{100 * row.score:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]" in line
    assert page.locator(".chart svg").count() == page.locator(".chart").count() > 3
    assert page.evaluate(COVERED) == []
    apart = [f"{100 * r.to_none.value:+.1f} ± {100 * r.to_none.half:.1f}" for r in rows if r.length and r.rank == 1]
    assert f"Δ no pre-training {apart[0]}" in page.locator(".figures").inner_text()
    page.locator("#board-table tbody tr").first.click()
    assert page.locator("dialog h2").is_visible() and page.locator("dialog pre").count() == 1


TITLES = """() => [...document.querySelectorAll("#chart-loss svg text")]
  .filter((t) => /_location|rotation|moco_v2|simclr|odc|finetune/.test(t.textContent))
  .map((t) => [t, t.getBoundingClientRect().top - t.ownerSVGElement.getBoundingClientRect().top])
  .map(([t, top]) => [Math.round(top / 40), t.textContent])"""
BROKEN = """() => [...document.querySelectorAll("#board-table tbody td:nth-child(2)")]
  .filter((cell) => cell.clientHeight > 24 * cell.textContent.split(" > ").length + 8).map((c) => c.textContent)"""

WIDER = (
    """(what) => [...document.querySelectorAll(what)].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.id)"""
)


@pytest.mark.parametrize("width, beside", [(1400, 3), (500, 1)])
def test_a_page_has_room_on_a_telephone_too(look, width, beside, tmp_path):
    """As many panels stand side by side as go in, and no word of a curriculum is broken."""
    page = look(report(RESULTS / "ham10000", tmp_path / "report.html"), viewport={"width": width, "height": 1000})
    rows = Counter(row for row, _ in page.evaluate(TITLES))
    assert set(rows.values()) == {beside} and [name for _, name in page.evaluate(TITLES)][-1] == "finetune"
    assert page.evaluate(BROKEN) == [] and page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(WIDER, ".chart") == []
    page.locator("#board-table tbody tr").nth(2).click()
    page.wait_for_selector("dialog .chart svg")
    assert page.evaluate(WIDER, "dialog, dialog .chart") == []


OBJECTIVE = {"protocol": "knn", "labelled": "10%", "metric": "balanced_accuracy", "label": "diagnosis"}


def test_curves_from_few_labels_are_told_apart_by_their_legend(look, make_filled):
    """Its signs are as strong as the marks, though a pale band lies behind these; numbers of labels stand upright."""
    results = make_filled(study={**STUDY, "objective": OBJECTIVE})
    rows = results.scores.to_pylist()
    fewer = [row | {"labelled": "10%", "value": row["value"] - 0.1} for row in rows]
    write(build("scores", [*fewer, *rows]), results.folder / "tables" / "scores.arrow")
    page = look(report(results.folder), viewport={"width": 500, "height": 1000})
    signs = page.locator("#chart-few-0 .role-legend-symbol path")
    assert signs.count() > 3
    assert all((signs.nth(i).get_attribute("opacity") or "1") == "1" for i in range(signs.count()))
    boxes = [signs.nth(i).bounding_box() for i in range(signs.count())]
    assert len({round((box["x"] + box["width"] / 2) / 4) for box in boxes}) == 1, "below one another on a narrow page"
    labels = page.locator("#chart-few-0 .role-axis-label text")
    assert not any("rotate" in (labels.nth(i).get_attribute("transform") or "") for i in range(labels.count()))
    assert page.evaluate(WIDER, ".chart") == []


@pytest.mark.parametrize("scheme, other", [("light", "dark"), ("dark", "light")])
def test_themes(look, make_filled, scheme, other):
    """As the system has it, or as the reader wants it; axes follow without being drawn again."""
    page = look(report(make_filled(study=STUDY).folder), color_scheme=scheme)
    paper = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    ink = "getComputedStyle(document.querySelector('#chart-cost .role-axis-title text')).fill"
    light, dark = "rgb(255, 255, 255)", "rgb(21, 24, 27)"
    assert paper() == {"light": light, "dark": dark}[scheme]
    before = page.evaluate(ink)
    while page.locator("#theme").inner_text() != f"Theme: {other}":
        page.click("#theme")
    assert paper() == {"light": light, "dark": dark}[other] and page.evaluate(ink) != before


def test_print_is_on_white_with_everything_unfolded(look, make_filled):
    page = look(report(make_filled(study=STUDY).folder), color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#study-file").is_visible() and not page.locator("#theme").is_visible()
    style = "([what, name]) => getComputedStyle(document.querySelector(what))[name]"
    for drawn in (".range i", ".range b", ".range u", ".chip", ".matrix td"):  # which browsers leave out
        assert page.evaluate(style, [drawn, "printColorAdjust"]) == "exact"
    assert page.evaluate(style, ["#study-file", "maxHeight"]) == "none", "nothing is cut off"
    assert len(page.pdf()) > 20_000


def test_markup_in_a_study_is_text(look, make_filled):
    results = make_filled(tasks=(TASK, "odc"), longest=2, study={"name": HOSTILE})
    page = look(report(results.folder))
    assert page.title() == f"{HOSTILE} · dermsearch" and page.locator("h1").inner_text() == HOSTILE
    page.locator("#tree-table tbody tr").nth(1).click()
    assert TASK in page.locator("dialog h2").inner_text() and page.locator("img").count() == 0


@pytest.mark.parametrize("state, shown", [
    ({"alive": True, "said": "3 of 9 stages; odc, epoch 2/4."}, "Running: 3 of 9 stages; odc, epoch 2/4. Written"),
    ({"alive": True, "said": "3 of 9 stages.", "ago": 90}, "The run is no longer alive: it last wrote"),
    ({"alive": False, "said": "The run is finished."}, "The run is finished. Written"),
])  # fmt: skip
def test_what_is_said_of_a_run(look, make_filled, state, shown):
    results = make_filled(study=STUDY)
    path = results.folder / "report.html"
    put(study_page(results, whole=False) + tail({**state, "written": time.time() - state.get("ago", 0)}), path)
    assert look(path).locator("#state").inner_text().startswith(shown)


def test_a_page_renews_itself(look, make_filled):
    """With what the reader chose still chosen."""
    results = make_filled(study=STUDY)
    path, body = results.folder / "report.html", study_page(results, whole=False)
    put(body + tail({"alive": True, "said": "1 of 9 stages.", "written": time.time()}), path)
    page = look(path)
    page.fill("#board-filter", "odc")
    put(body + tail({"alive": True, "said": "2 of 9 stages.", "written": time.time()}), path)
    page.wait_for_function("document.querySelector('#state').textContent.includes('2 of 9')", timeout=200_000)
    assert page.locator("#board-filter").input_value() == "odc"


@pytest.mark.long
def test_the_page_of_a_run_at_its_beginning_midway_after_a_kill_and_at_its_end(look, tmp_path):
    words = ["run", "curriculum_three.yaml", *TINY, "curriculum.length=[1,1]", "compute.engine=inline", "--out", "out"]
    path, log = tmp_path / "out" / "report.html", (tmp_path / "log").open("w+")

    def until(page, text):
        page.wait_for_function(f"document.querySelector('#state').textContent.includes({text!r})", timeout=200_000)

    going = warm.Command([*words, "train.epochs=200"], tmp_path, log.fileno(), log.fileno())
    try:
        deadline = time.monotonic() + 400
        while not path.is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        page = look(path)
        assert page.locator("#state").inner_text().startswith("Running: ") and page.locator("h1").inner_text()
        assert page.locator("#tree-table tbody tr").count() <= 1, "nothing is finished"
        page.screenshot(path=tmp_path / "begun.png")
        page.wait_for_selector("#tree-table tbody tr >> nth=1", timeout=200_000)
        until(page, "epoch")
        page.screenshot(path=tmp_path / "midway.png")
        assert going.poll() is None, "it goes on"
    finally:
        os.kill(going.pid, signal.SIGKILL)
        going.poll(100)
    dead = look(path, later=120)
    assert dead.locator("#state").inner_text().startswith("The run is no longer alive: it last wrote ")
    dead.screenshot(path=tmp_path / "dead.png")
    done = warm.run([*words, "train.epochs=200"], tmp_path)
    assert done.returncode == 0, done.stderr
    until(page, "The run is finished.")
    assert page.locator("#tree-table tbody tr").count() == 4 and page.locator("#chart-cost svg").count() == 1
    page.screenshot(path=tmp_path / "over.png")


def test_a_large_study_opens_at_once(look, make_filled):
    results = make_filled(epochs=60, tasks=("odc", "moco_v2", "simclr", "byol", "relative_location"), longest=5)
    page = look(report(results.folder))
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert ready < 4000  # under a second on a quiet machine
    assert page.locator("#tree-table tbody tr:visible").count() < 120 < page.locator("#tree-table tbody tr").count()
