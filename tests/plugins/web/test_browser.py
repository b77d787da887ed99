"""Whole sessions in a real browser; with ATTPC_SCREENSHOTS=1 docs/labelling/ is made anew."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")
pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")

from selenium.webdriver.common.keys import Keys

from tests.conftest import command, environment
from tests.plugins.web.browser import Browser, start_browser
from tests.plugins.web.conftest import Server, StartServer

PICTURES = Path(__file__).parents[3] / "docs" / "labelling"
#: What a hostile labeller would be called.
SCRIPT = "<img src=x onerror=document.title='hacked'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as started:
        yield started


@pytest.fixture(autouse=True)
def clean(browser: Browser) -> Iterator[None]:
    """Every test ends without a complaint in the console and without a foreign request."""
    browser.driver.delete_all_cookies()
    browser.open("about:blank")
    yield
    # a page may still ask while the test's server is stopped
    expected = ("favicon", "ERR_CONNECTION_REFUSED")
    assert [x for x in browser.complaints() if not any(word in x for word in expected)] == []
    for address in browser.network():
        scheme, _, rest = address.partition("://")
        if scheme in ("http", "https", "ws", "wss"):
            assert rest.split("/")[0].split(":")[0] in ("127.0.0.1", "localhost"), address


def take_picture(browser: Browser, name: str) -> None:
    if os.environ.get("ATTPC_SCREENSHOTS"):
        browser.wait(lambda: browser.run("return document.fonts.status") == "loaded")
        PICTURES.mkdir(exist_ok=True)
        browser.screenshot(PICTURES / f"{name}.png")


def begin(browser: Browser, server: Server, labeller: str, query: str = "policy=random") -> str:
    """Open the page as a labeller; gives the first event's row."""
    browser.open(f"{server.address}/?labeller={labeller}&{query}")
    return browser.wait_row()


def answers_in(path: Path) -> list[tuple[str, str, str]]:
    file = sqlite3.connect(path)
    rows = file.execute(
        "SELECT labeller, label, note FROM answers WHERE withdrawn_at IS NULL ORDER BY id"
    ).fetchall()
    file.close()
    return rows


def test_a_session_by_keyboard_alone(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.sqlite"
    server = start(folder, "--labels", labels, "--repeats", 0)
    browser.open(f"{server.address}/?policy=random")
    browser.run("localStorage.clear()")
    browser.open(f"{server.address}/?policy=random")
    browser.find("#ask[open] input")
    browser.press("anna", Keys.ENTER)  # in place of the name that is proposed
    rows = [browser.wait_row()]
    assert browser.text("#who") == "anna"
    assert not browser.all("#scores meter")  # hidden, so that the model does not lead

    for key in ("1", "2", "u"):
        browser.press(key)
        rows.append(browser.wait_row(rows[-1]))
    assert [label for _, label, _ in answers_in(labels)] == ["proton", "carbon", "unsure"]

    browser.press(" ")  # no scores in sight: no answer
    browser.press("n")
    browser.find("#ask[open] input")
    browser.press("two tracks", Keys.ENTER)
    browser.wait(lambda: browser.text("#note") == "note: two tracks")
    browser.press("3")
    rows.append(browser.wait_row(rows[-1]))
    assert answers_in(labels)[-1] == ("anna", "noise", "two tracks")

    browser.press(Keys.BACKSPACE)
    assert browser.wait_row(rows[-1]) == rows[-2]
    assert len(answers_in(labels)) == 3
    browser.press("1")
    assert browser.wait_row(rows[-2]) == rows[-1]
    assert answers_in(labels)[-1][1] == "proton"

    browser.press(Keys.ARROW_LEFT)  # look back, and correct what stands there
    assert browser.wait_row(rows[-1]) == rows[-2]
    browser.wait(lambda: browser.all('#answers [data-label="proton"][aria-pressed="true"]'))
    browser.wait(lambda: browser.all("#scores meter"))  # one has answered: the scores may be seen
    browser.press(Keys.ARROW_LEFT)
    browser.wait(lambda: browser.row() == rows[2])
    browser.press("2")
    browser.wait(lambda: browser.row() == rows[-1])
    assert len(answers_in(labels)) == 4
    assert ("anna", "unsure", "") not in answers_in(labels)

    browser.press("s")
    browser.wait(lambda: browser.all("#scores meter"))
    suggested = browser.text("#scores b")
    browser.press(" ")
    rows.append(browser.wait_row(rows[-1]))
    assert answers_in(labels)[-1][1] == suggested
    browser.press("s", "?")
    browser.find("#help[open]")
    take_picture(browser, "help")
    browser.press(Keys.ESCAPE)
    browser.wait(lambda: not browser.all("#help[open]"))

    browser.driver.refresh()
    assert browser.wait_row() == rows[-1]
    assert browser.text("#who") == "anna"


def test_two_labellers_a_server_that_is_killed_and_what_they_disagree_on(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.sqlite"
    server = start(folder, "--labels", labels, "--repeats", 0)
    port = int(server.address.rsplit(":", 1)[1])
    for labeller, keys in (("anna", "11321"), ("ben", "12321")):
        row = begin(browser, server, labeller)
        for key in keys:
            browser.press(key)
            row = browser.wait_row(row)
    assert len(answers_in(labels)) == 10

    server.kill()
    browser.press("1")
    browser.wait(lambda: "nothing is lost" in browser.text("#message"))
    browser.complaints()  # the browser says that nobody answered
    assert browser.row() == row
    server = start(folder, "--labels", labels, "--repeats", 0, port=port)
    browser.press("1")
    row = browser.wait_row(row)
    browser.wait(lambda: browser.text("#message") == "")
    assert len(answers_in(labels)) == 11

    browser.open(f"{server.address}/agreement")
    browser.find("#alpha")
    # of the five events that both labelled, one got two labels
    assert 0.5 < float(browser.text("#alpha")) < 1
    assert "To settle: 1" in browser.text("#agreement")
    take_picture(browser, "agreement")
    disputed = begin(browser, server, "carl", "policy=settle")
    assert browser.text("#said") == "anna: protonben: carbon"
    browser.press("2")
    browser.wait(lambda: browser.row() == "none")
    browser.open(f"{server.address}/agreement")
    browser.wait(lambda: "To settle: 0" in browser.text("#agreement"))
    shown = server.get("/api/list?filter=label=carbon&limit=50")["events"]
    assert int(disputed) in [entry["row"] for entry in shown]


def test_by_mouse(browser: Browser, folder: Path, start: StartServer, tmp_path: Path) -> None:
    labels = tmp_path / "labels.sqlite"
    server = start(folder, "--labels", labels, "--repeats", 0)
    row = begin(browser, server, "anna")
    # where the strongest hit lies in x-y, from the page's own frame
    browser.press(".")
    browser.wait(lambda: browser.run("return window.getSelection() !== null"))
    before = trace_ink(browser)
    assert before > 500
    box = browser.find("#view").size
    side = min(box["height"], 0.56 * box["width"])
    hit = strongest_hit(server, int(row))
    radius = server.get("/api/setup")["geometry"]["radius_mm"] * 1.06
    x = side / 2 * (1 + hit["x"] / radius)
    y = max((box["height"] - side) / 2, 0) + side / 2 * (1 - hit["y"] / radius)
    browser.point("#view .ink", x, y)
    browser.wait(lambda: not browser.all(".tip[hidden]"))
    assert "charge" in browser.text(".tip")
    assert "bucket" in browser.text(".tip")
    browser.point("#view .ink", x, y, click=True)
    browser.wait(lambda: trace_ink(browser) > 500)
    browser.find('#answers [data-label="noise"]').click()
    browser.wait_row(row)
    assert answers_in(labels) == [("anna", "noise", "")]


def trace_ink(browser: Browser) -> int:
    """Pixels of the trace's canvas that something was drawn on."""
    return int(
        browser.run(
            "const c = document.getElementById('trace');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n"
        )
    )


def strongest_hit(server: Server, row: int) -> dict[str, float]:
    from tests.plugins.web.test_server import read_event

    _, columns = read_event(server, row)
    return {name: float(values[-1]) for name, values in columns.items()}


def test_names_cannot_be_scripts(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "labels.sqlite", "--classes", SCRIPT, "other")
    server.answer(0, SCRIPT, SCRIPT[:40], note=SCRIPT)
    server.answer(0, "other", "ben")
    for page in ("agreement", "gallery", "?labeller=ben&policy=settle", "?row=0"):
        browser.open(f"{server.address}/{page}")
        browser.wait(lambda: "onerror" in browser.run("return document.body.textContent"))
        assert browser.run("return document.title") != "hacked"
        assert not browser.all("img")


def test_readable_at_150_percent_in_light_and_dark(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "labels.sqlite")
    try:
        # a laptop's 1366 x 768 at 150%: 911 x 512 CSS pixels
        browser.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 911, "height": 512, "deviceScaleFactor": 1.5, "mobile": False},
        )
        for theme in ("light", "dark"):
            browser.open(f"{server.address}/?labeller=anna&policy=random")
            browser.run("localStorage.setItem('theme', arguments[0])", theme)
            begin(browser, server, "anna")
            browser.press(".")
            width, height = browser.run("return [innerWidth, innerHeight]")
            assert browser.run("return document.documentElement.scrollWidth") <= width
            for button in browser.all("#answers button"):
                box = button.rect
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
                assert box["y"] + box["height"] <= height
            assert browser.find("#view").size["height"] > 250
            paper, ink = browser.run(
                "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
            )
            assert contrast(paper, ink) > 7
            take_picture(browser, f"zoom_{theme}")
    finally:
        browser.run("localStorage.clear()")
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(x) / 255 for x in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([light(one), light(other)])
    return (high + 0.05) / (low + 0.05)


def test_gallery_comparison_clusters_and_trust(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    thresholds = ["--thresholds", "proton=0.999", "noise=0.999"]
    subprocess.run(
        command("retag", other, *thresholds), check=True, env=environment(), capture_output=True
    )
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    labels = tmp_path / "labels.sqlite"
    rows = start(folder, "--labels", labels).get("/api/list?limit=100")["events"]
    lines = [f"{e['run']},{e['event']},{1 + (e['tag'] == 'noise')},0.9" for e in rows]
    (clusters / "clusters.csv").write_text("\n".join(["run,event,cluster,probability", *lines]))
    names = "# names\nmodel_sha256: ab\nclusters:\n  1: '?'\n  2: '?'\n"
    (clusters / "clusters.yaml").write_text(names)
    server = start(folder, "--labels", labels, "--compare", other, "--clusters", clusters)

    begin(browser, server, "anna")
    browser.open(f"{server.address}/gallery?filter=tag=noise")
    browser.find(".tile")
    assert len(browser.all(".tile")) == len([e for e in rows if e["tag"] == "noise"])
    browser.find("#brush button:nth-of-type(3)").click()
    tile = browser.find(".tile")
    tile.click()
    browser.wait(lambda: browser.text(".tile b") == "carbon")
    browser.press("1")  # the tile in focus
    browser.wait(lambda: browser.text(".tile b") == "proton")
    assert answers_in(labels) == [("anna", "proton", "")]
    browser.wait(lambda: all_drawn(browser))
    browser.run("scrollTo(0, 0)")
    take_picture(browser, "gallery")

    browser.open(f"{server.address}/compare")
    browser.find(".tile")
    flips = server.get("/api/compare")["flips"]
    assert len(flips) == len(browser.all(".tile"))
    assert {flip["tag_b"] for flip in flips} == {"uncertain"}
    browser.wait(lambda: all_drawn(browser))
    take_picture(browser, "compare")

    browser.open(f"{server.address}/clusters")
    browser.find(".tile")
    browser.all(".toolbar button")[0].click()
    browser.wait(lambda: browser.all('.toolbar button[aria-pressed="true"]'))
    assert (clusters / "clusters.yaml").read_text().startswith("# names\n")
    assert "1: proton" in (clusters / "clusters.yaml").read_text()
    browser.wait(lambda: all_drawn(browser))
    take_picture(browser, "clusters")

    browser.open(f"{server.address}/trust")
    browser.find("#trust button").click()
    browser.wait(lambda: "Label them" in browser.text("#trust"))
    truth = {e["row"]: e["tag"] for e in rows}
    state = server.get("/api/next?labeller=anna&policy=trust")
    while state["task"] is not None:
        row = state["task"]["row"]
        state = server.answer(row, truth[row], policy="trust", scores_shown=False)
    browser.open(f"{server.address}/trust")
    browser.find(".interval .span")
    # every event is labelled, so that nothing is left to estimate; one noise event is no noise
    worth = {entry["name"]: entry for entry in server.get("/api/trust")["classes"]}
    n_noise = len([e for e in rows if e["tag"] == "noise"])
    assert list(worth["noise"]["purity"].values()) == pytest.approx([1 - 1 / n_noise] * 3)
    for what in ("purity", "efficiency"):
        assert worth["carbon"][what] == {"value": 1, "low": 1, "high": 1}
    take_picture(browser, "trust")


def all_drawn(browser: Browser) -> bool:
    """Whether every tile has its picture."""
    return bool(
        browser.run(
            "return [...document.querySelectorAll('.tile canvas')].every((c) => c.width === 480)"
        )
    )


def test_pictures_of_the_page(
    browser: Browser, folder: Path, start: StartServer, tmp_path: Path
) -> None:
    """The page with an event, light and dark, as it stands in the documentation."""
    server = start(folder, "--labels", tmp_path / "labels.sqlite", "--repeats", 0)
    row = server.get("/api/list?filter=tag=proton")["events"][0]["row"]
    for theme in ("light", "dark"):
        browser.open(f"{server.address}/?labeller=anna&row={row}")
        browser.run("localStorage.setItem('theme', arguments[0])", theme)
        browser.open(f"{server.address}/?labeller=anna&row={row}")
        browser.wait_row()
        browser.press(".")
        browser.wait(lambda: trace_ink(browser) > 2000)
        assert lit_pixels(browser) > 1000
        take_picture(browser, f"label_{theme}")
    browser.run("localStorage.clear()")


def lit_pixels(browser: Browser) -> int:
    """Pixels of a screenshot of the view that are neither grey nor paper: hits in colour."""
    import io

    from matplotlib import pyplot as plt

    picture = plt.imread(io.BytesIO(browser.find("#view").screenshot_as_png))[..., :3]
    return int((picture.max(axis=2) - picture.min(axis=2) > 0.3).sum())
