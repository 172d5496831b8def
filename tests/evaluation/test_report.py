"""The page: whole, self-contained, escaped, and running in a real browser without a request or an error."""

import base64
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from otic.apps.evaluate import evaluate
from otic.core.seeds import rng
from otic.evaluation import charts, png, report, scoreboard
from otic.evaluation.projection import plane

CHROMIUM = Path("/usr/bin/chromium")
VOID = {"meta", "link", "br", "wbr", "img", "hr", "path", "rect", "circle", "use"}
NASTY = "<script>alert(1)</script>&\"'"


class Balance(HTMLParser):
    """Fails on a tag closed out of order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag


@pytest.fixture
def page(model, tones, tmp_path: Path) -> Path:
    """Every section there is, of a small evaluation with hostile names."""
    source = tones(labels=lambda i: (("k0", "k1", "k2")[i % 3],), fold=lambda i: str(i // 3 % 4))
    for row in source.rows:
        object.__setattr__(row, "id", row.id + NASTY)
    results = evaluate({NASTY: model}, source)
    results.notes.append(NASTY)
    log = [{"step": k, "loss": 1 / (k + 1), "parts": {"frame": 0.5 / (k + 1)}, "lr": 1e-3 * k} for k in range(50)]
    gen = rng("page")
    example = report.Masked(
        name="clip",
        seconds=1.0,
        spec=gen.random((96, 64)),
        visible=gen.random((6, 4)) < 0.5,
        guess=gen.random((96, 64)),
    )
    views = [v for v in results.views if v.protocol == "linear"]
    path = tmp_path / "report.html"
    report.write(
        path, NASTY, scoreboard.scores(results), report.curves(log), report.masked([example]),
        scoreboard.closer(views[0], views[1:]), report.notes(results.notes),
        report.settings({"cores": 2}, {"a": NASTY}), summary=scoreboard.sentence(results),
    )  # fmt: skip
    return path


def test_the_page_is_well_formed_and_escaped(page):
    html = page.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(html)
    assert parser.open == [] and len(parser.ids) == len(set(parser.ids))
    assert "alert(1)" in html and "<script>alert" not in html


def test_nothing_points_outside_the_file(page):
    html = page.read_text(encoding="utf-8")
    targets = re.findall(r'(?:src|href)="([^"]*)"', html) + re.findall(r"url\(([^)]*)\)|@import ([^;]*)", html)
    assert targets and all(str(t).startswith(("data:", "#")) for t in targets)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium")
@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 390)])
def test_a_browser_opens_it_without_errors_or_requests(page, scheme, width):
    from playwright.sync_api import sync_playwright

    errors, requests = [], []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        assert tab.locator("section").count() == 6
        assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out, on a phone either
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        tab.locator(".map g use").first.hover(force=True)
        assert "c0" in tab.locator("#tip").inner_text() and tab.evaluate("getComputedStyle(tip).opacity") != ""
        tab.locator(".map .legend button").first.click()
        assert tab.locator(".map.focus g.on").count() == 1
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium")
def test_a_table_of_twenty_classes_is_seen_whole(tmp_path):
    from playwright.sync_api import sync_playwright

    names = [f"alternating drums {k}"[:17] for k in range(20)]
    table = charts.confusion(np.full((20, 20), 12), names)
    body = f'<div class="two"><div>{table}</div><div></div></div>'
    report.write(tmp_path / "r.html", "Many", report.Section(title="Confusions", body=body))
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        for width in (1280, 400):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.goto((tmp_path / "r.html").as_uri())
            hidden = "(x => x.scrollWidth - x.clientWidth)(document.querySelector('.scroll'))"
            assert tab.evaluate(hidden) <= 0, width
        browser.close()


def test_sections_appear_only_with_data(tmp_path):
    assert report.curves([]) is None and report.masked([]) is None and report.notes([]) is None
    report.write(tmp_path / "r.html", "Empty", None, report.notes(["one"]))
    assert (tmp_path / "r.html").read_text(encoding="utf-8").count("<section>") == 1


def test_a_log_cut_off_in_its_last_line_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo', encoding="utf-8")
    section = report.curves(path)
    assert section is not None and "1.5" in section.body


def test_every_number_of_a_log_but_the_counters_is_drawn():
    log = [{"step": k, "loss": 1.0 / k, "time": 9.0 * k, "parts": {"frame": 2.0 / k}, "lr": 0.1 * k} for k in (1, 2, 3)]
    section = report.curves(log)
    assert section is not None and re.findall("<h3>(.*?)</h3>", section.body) == ["frame", "learning rate"]


def test_numbers_known_now_and_then_are_drawn_whole_and_apart():
    """Every tenth line has the features' health: no gaps in its curve, nothing of it among the parts of the loss."""
    log = [{"step": k, "loss": 1.0 / k, "frame": 2.0 / k, "waited": 0.1 / k} for k in range(1, 41)]
    for line in log[::10]:
        line |= {"patch_rank": 40.0 + line["step"], "pair_cosine": 0.5, "warning": NASTY}
    section, health = report.curves(log), report.health(log)
    assert section is not None and re.findall("<h3>(.*?)</h3>", section.body) == [
        "frame", "waiting for data <small>share of the time</small>",
    ]  # fmt: skip
    assert health is not None and re.findall("<h3>(.*?) <", health.body) == ["rank of patches"]
    assert health.body.count("M") == 1 and health.body.count("L") == 3
    assert report.health(log[1:9]) is None and report.health([]) is None


def test_a_picture_holds_the_values_time_right_and_pitch_up():
    values = np.zeros((5, 3))
    values[4, 0] = 1.0  # the last frame, the lowest band
    data = base64.b64decode(png.picture(values, 0.0, 1.0).partition(",")[2])
    assert data.startswith(b"\x89PNG") and data[16:24] == (5).to_bytes(4, "big") + (3).to_bytes(4, "big")
    at = data.index(b"IDAT")
    body = zlib.decompress(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")])
    pixels = np.frombuffer(body, np.uint8).reshape(3, 6)[:, 1:]
    assert pixels[2, 4] == 254 and pixels.sum() == 254


def test_the_map_keeps_groups_together():
    gen = rng("map")
    label = np.repeat(np.arange(3), 30)
    x = 8 * np.eye(3)[label] @ gen.normal(size=(3, 40)) + gen.normal(size=(90, 40))
    for method in ("tsne", "pca"):
        points = plane(x, method=method)
        near = np.argsort(((points[:, None] - points) ** 2).sum(-1), axis=1)[:, 1]
        assert points.shape == (90, 2) and (label[near] == label).mean() > 0.95


@pytest.mark.parametrize("n, d", [(4, 3), (3, 50), (40, 2), (12, 300)])
def test_few_points_or_few_axes_are_drawn_too(n, d):
    assert np.isfinite(plane(rng(n, d).normal(size=(n, d)))).all()


def test_curves_leave_gaps_where_values_are_missing():
    x = np.arange(4.0)
    assert charts.lines(x, {"y": np.array([1.0, np.nan, 2.0, 3.0])}).count("M") == 2


def test_an_axis_begins_below_the_lowest_value():
    assert charts.floor(iter([0.43, 0.9])) == 0.4 and charts.floor([0.19]) == 0.0 and charts.floor([]) == 0.0
