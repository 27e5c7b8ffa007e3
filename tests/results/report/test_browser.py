"""The page in a browser: no error, tree, sort, filter, hover, click, keyboard, themes, print, and a run's life."""

import shutil
import time

import pytest
from playwright import sync_api
from results.report.conftest import HOSTILE, STUDY, TASK

from dermsearch.results.report.page import put, tail
from dermsearch.results.report.report import report, study_page

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

    def open_page(path, **options):
        page = browser.new_page(**options)
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
    assert page.locator("dialog h2").inner_text() == "Rel. loc. → MoCo v2"
    page.wait_for_selector("dialog .chart svg")
    assert "dermsearch export" in page.locator("dialog pre").inner_text()
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
    page.wait_for_function("document.querySelector('#state').textContent.includes('2 of 9')", timeout=20_000)
    assert page.locator("#board-filter").input_value() == "odc"


def test_a_large_study_opens_at_once(look, make_filled):
    results = make_filled(epochs=60, tasks=("odc", "moco_v2", "simclr", "byol", "relative_location"), longest=5)
    page = look(report(results.folder))
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert ready < 4000  # under a second on a quiet machine
    assert page.locator("#tree-table tbody tr:visible").count() < 120 < page.locator("#tree-table tbody tr").count()
