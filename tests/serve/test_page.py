"""The page, used in a real browser against a real server: by files, drops, keys and a microphone."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser, open_browser
from fakes import PATIENCE_S, start, tone, wait_until, write_audio

pytestmark = [
    pytest.mark.browser,
    # a laptop may do without; CI has it, and there the tests fail without
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium: sudo apt install chromium"),
]
LARGE = 200 << 20
CSV = {"Content-Type": "text/csv"}
WIDTHS, SCHEMES = (400, 800, 1280, 1600), ("light", "dark")
STATUS, ERROR = (
    "document.querySelector('#genre-status').textContent",
    "document.querySelector('#genre-error').textContent",
)
# of all text that is seen: its contrast to what lies behind it, WCAG 2.1
CONTRASTS = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = colour => parse(colour).slice(0, 3).map(c => c / 255)
    .map(c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return parse(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest("title, noscript")) continue;
    const style = getComputedStyle(element), isDrawn = element instanceof SVGElement;
    const [low, high] = [light(isDrawn ? style.fill : style.color), light(behind(element))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), parseFloat(style.fontSize), text]);
  }
  return found;
})()"""

# what reaches into the margins, if only a little
BEYOND = """(() => {
  const main = document.querySelector("main").getBoundingClientRect();
  return [...document.querySelectorAll("main *")].filter(element => element.checkVisibility() && !element.closest(".scroll *"))
    .filter(element => (box => box.left < main.left - 1 || box.right > main.right + 1)(element.getBoundingClientRect()))
    .map(element => element.outerHTML.slice(0, 99));
})()"""


@pytest.fixture(scope="module")
def url(workshop: Path, relisten_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = f"models=[{workshop}/logs/train/tiny/model,{relisten_model}]"
    limits = [
        "serve.port=0",
        "serve.workers=1",
        "serve.streams=1",
        "serve.max_rows=700",
        f"serve.timeout_s={PATIENCE_S}",
    ]
    process = start("serve", models, "run.name=page", *limits, cwd=tmp_path_factory.mktemp("served"))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on http://127.0.0.1:"), line + process.stdout.read()
        yield line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def browser(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture
def page(browser: Browser, url: str) -> Browser:
    """The page, just opened."""
    browser.show(1280, "light")
    browser.open(url + "/")
    browser.wait("document.querySelector('#genre').checkVisibility()")
    return browser


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music in two formats, and what is none."""
    folder = tmp_path_factory.mktemp("tracks")
    wave = np.concatenate([tone(330, 3.0), 0.3 * np.random.default_rng(0).standard_normal(66150)]).astype(np.float32)
    write_audio(folder / "a <b>é.wav", wave)
    soundfile.write(folder / "b.mp3", wave, 22050)
    soundfile.write(folder / "c.au", wave, 22050)
    (folder / "text.wav").write_text("words\n" * 99)
    with (folder / "large.wav").open("wb") as stream:
        stream.truncate(LARGE)
    return folder


def judged(page: Browser, name: str) -> str:
    """What the page says of a file, once it is drawn."""
    page.wait(f"{STATUS}.startsWith({json.dumps(name + ': ')}) && document.querySelector('#timeline svg')")
    return str(page.ask(STATUS))


def answer_to(url: str, file: Path) -> Any:
    with file.open("rb") as stream:
        return httpx.post(
            url + "/v1/genre?top_k=10", files={"file": stream}, trust_env=False, timeout=PATIENCE_S
        ).json()


def wait_for_colours(page: Browser, selector: str, num: int) -> None:
    """Until a canvas shows more than so many colours; one that is blank has one."""
    page.wait(f"""(canvas => canvas && new Set(new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > {num})(
        document.querySelector("{selector}"))""")  # fmt: skip


def test_a_file_is_judged_and_drawn_chosen_or_dropped(page: Browser, url: str, tracks: Path) -> None:
    page.drop("#genre .drop", tracks / "b.mp3")
    judged(page, "b.mp3")
    name = "a <b>é.wav"
    file = tracks / name
    page.choose("#file", file)
    said, answer = judged(page, name), answer_to(url, file)
    found = answer["files"][0]
    assert said.startswith(f"{name}: {found['top'][0]['label']} {100 * found['top'][0]['probability']:.0f} %. Then ")
    wait_for_colours(page, "#spectrogram canvas", 50)
    wait_for_colours(page, "#waveform canvas", 1)
    assert page.ask("document.querySelectorAll('#timeline .value').length") == 6 * len(found["windows"])
    assert page.ask("document.querySelectorAll('#bars .value').length") == 10
    page.ask("document.querySelectorAll('details').forEach(details => details.open = true)")
    page.wait("document.querySelector('#timeline-numbers table')")
    rows = page.ask(
        "[...document.querySelectorAll('#timeline-numbers tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert len(rows) == len(found["windows"]) + 1
    assert [float(row[0]) for row in rows[2:]] == [float(row[1]) for row in rows[1:-1]]
    order = [answer["classes"].index(title.removesuffix(", %")) for title in rows[0][2:]]
    for row, window in zip(rows[1:], found["windows"], strict=True):
        assert [float(cell) for cell in row[2:]] == pytest.approx(
            [100 * window["probabilities"][k] for k in order], abs=0.051
        )


def test_the_player_moves_through_the_pictures(page: Browser, tracks: Path) -> None:
    page.choose("#file", tracks / "b.mp3")
    judged(page, "b.mp3")
    page.wait("document.querySelector('#waveform svg')")
    assert page.ask("document.querySelector('#waveform .head').getAttribute('visibility')") == "hidden"
    page.call("Runtime.evaluate", expression="document.querySelector('#player').play()", userGesture=True)
    place = "Number(document.querySelector('#waveform .head').getAttribute('x1'))"
    page.wait(f"{place} > 140 && document.querySelector('#player').currentTime > 0.2")
    page.ask("document.querySelector('#player').pause()")
    x, y = page.ask(
        "(box => [box.x + 400, box.y + 50])(document.querySelector('#spectrogram').getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    page.wait(f"Math.abs({place} - 400) < 4")


def test_a_format_that_browsers_do_not_know_is_judged_all_the_same(page: Browser, tracks: Path) -> None:
    page.choose("#file", tracks / "c.au")
    judged(page, "c.au")
    page.wait("document.querySelector('#note').textContent.includes('cannot play')")
    assert not page.ask("document.querySelector('#waveform').checkVisibility()")
    wait_for_colours(page, "#spectrogram canvas", 50)


def test_what_is_drawn_is_what_the_server_sent(page: Browser) -> None:
    """Three columns of two bands: the loudest is the brightest colour, 80 dB below it the darkest; the lowest band is below."""
    data = base64.b64encode(bytes([255, 0, 0, 255, 0, 0])).decode()
    levels = {"num_columns": 3, "num_bands": 2, "low_db": -80, "high_db": 0, "data": data}
    drawn = page.ask(f"""(async () => {{
      const {{ imageLevels }} = await import("/panels.js"), {{ canvas }} = imageLevels({json.dumps(levels)}, 0, 1);
      return [canvas.width, canvas.height, ...canvas.getContext("2d").getImageData(0, 0, 3, 2).data];
    }})()""")
    dark, bright = [0x44, 0x01, 0x54, 255], [0xFD, 0xE7, 0x25, 255]
    assert drawn == [3, 2, *dark, *bright, *dark, *bright, *dark, *dark]


def test_what_is_no_track_is_refused_in_a_sentence(page: Browser, tracks: Path) -> None:
    page.choose("#file", tracks / "text.wav")
    page.wait(ERROR)
    assert page.ask(ERROR).startswith("text.wav: No audio that can be decoded (format not recognised); WAV, FLAC, MP3")
    page.drop("#genre .drop", tracks / "b.mp3", tracks / "c.au")
    page.wait(f"{ERROR}.startsWith('2 files')")
    page.choose("#file", tracks / "large.wav")
    page.wait(f"{ERROR}.startsWith('large.wav has 200 MiB')")
    assert "64 MiB at most (serve.max_mib=64)" in page.ask(ERROR)
    assert not page.ask("document.querySelector('#result').checkVisibility()")
    page.choose("#file", tracks / "b.mp3")
    judged(page, "b.mp3")
    assert page.ask(ERROR) == ""


def test_the_server_refuses_what_is_too_large_however_it_comes(page: Browser, tracks: Path) -> None:
    """Past the page's own look: a browser that is still sending hears the sentence."""
    said = page.ask(f"""(async () => {{
      const {{ judge }} = await import("/server.js");
      return judge(new File([new Uint8Array({LARGE})], "large.wav"), ["a"]).catch(error => error.message);
    }})()""")  # fmt: skip
    assert said == "The body is larger than serve.max_mib=64 MiB."
    page.choose("#file", tracks / "b.mp3")
    judged(page, "b.mp3")


def test_a_microphone_is_heard_as_it_comes(page: Browser) -> None:
    page.ask("document.querySelector('#microphone').click()")
    page.wait("document.querySelectorAll('#timeline .value').length >= 12")
    assert page.ask("document.querySelector('#microphone').textContent") == "Stop the microphone"
    wait_for_colours(page, "#spectrogram canvas", 50)
    refused = page.ask("""(async () => {
      const { Microphone } = await import("/microphone.js");
      return new Microphone({}).start(1).catch(error => error.message);
    })()""")
    assert refused.startswith("The server takes no stream now")
    page.ask("document.querySelector('#microphone').click()")
    page.wait(f"{STATUS}.startsWith('All in all: ')")
    assert "answers, one a second" in page.ask("document.querySelector('#bars-caption').textContent")
    assert page.ask("document.querySelector('#microphone').textContent") == "Use the microphone"
    assert page.ask(ERROR) == ""


def focus(page: Browser) -> str:
    return str(page.ask("document.activeElement.id || document.activeElement.textContent.trim()"))


def tab_to(page: Browser, place: str) -> None:
    seen = []
    for _ in range(20):
        page.press("Tab")
        seen.append(focus(page))
        if seen[-1] == place:
            return
    raise AssertionError(f"Tab does not lead to {place}: {seen}")


def test_a_keyboard_is_enough(page: Browser, tracks: Path) -> None:
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    tab_to(page, "tab-genre")
    page.press("ArrowRight")
    assert focus(page) == "tab-relisten"
    assert page.ask("document.querySelector('#relisten').checkVisibility()")
    page.press("Home")
    assert page.ask("document.querySelector('#genre').checkVisibility()")
    tab_to(page, "file")
    outline = "getComputedStyle(document.querySelector('#file').closest('.button')).outlineStyle"
    assert page.ask(outline) == "solid", "where the focus is, is seen"
    page.press("Enter")
    wait_until(lambda: page.ask("true") and page.told("Page.fileChooserOpened"), what="the chooser of files")
    opened = page.told("Page.fileChooserOpened")[-1]
    page.call("Page.setInterceptFileChooserDialog", enabled=False)
    page.call("DOM.setFileInputFiles", backendNodeId=opened["backendNodeId"], files=[str(tracks / "b.mp3")])
    judged(page, "b.mp3")
    tab_to(page, "example")
    page.press("Enter")
    judged(page, "example.wav")
    tab_to(page, "player")
    tab_to(page, "These numbers as a table")
    page.press("Enter")
    page.wait("document.querySelector('#timeline-numbers table')")
    page.press("Tab")
    assert page.ask("document.activeElement.getAttribute('aria-label')") == "Probabilities over time"


def test_rows_are_judged_all_at_once(page: Browser, url: str, heard: Path, tmp_path: Path) -> None:
    table = heard / "logs/synth/l/test.csv"
    page.ask("document.querySelector('#tab-relisten').click()")
    page.drop("#relisten .drop", table)
    page.wait("document.querySelector('#relisten table')")
    assert page.ask("document.querySelectorAll('#relisten tbody tr').length") == 100
    assert "600 of 600 rows have an answer. Mean probability" in page.ask(
        "document.querySelector('#relisten .status').textContent"
    )
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.ask("document.querySelector('#relisten a').click()")
    saved = tmp_path / "test-answers.csv"
    wait_until(saved.exists)
    rows = list(csv.DictReader(saved.read_text().splitlines()))
    with table.open("rb") as stream:
        answers = httpx.post(
            url + "/v1/relisten", content=stream.read(), headers=CSV, trust_env=False, timeout=PATIENCE_S
        ).json()["rows"]
    assert [(row["row"], row["id"]) for row in rows] == [(str(row["row"]), row["id"]) for row in answers]
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [row["probability"] for row in answers], abs=1e-4
    )
    (tmp_path / "short.csv").write_text("msno,song_id\na,\n")
    page.choose("#relisten-file", tmp_path / "short.csv")
    page.wait("document.querySelector('#relisten .status').textContent.includes('0 of 1 rows')")
    assert "no song_id" in page.ask("document.querySelector('#relisten table').textContent")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    page.choose("#relisten-file", tmp_path / "bad.csv")
    page.wait("document.querySelector('#relisten .bad').textContent.includes('No column msno')")
    (tmp_path / "large.csv").write_text("msno,song_id\n" * 70000)
    page.choose("#relisten-file", tmp_path / "large.csv")
    page.wait("document.querySelector('#relisten .bad').textContent.includes('1 KiB for each of serve.max_rows=700')")
    assert not page.ask("document.querySelector('#tab-popularity').checkVisibility()"), "no such model is served"


def test_it_is_read_on_a_phone_and_a_wide_screen_by_day_and_night(page: Browser, heard: Path) -> None:
    page.ask("document.querySelector('#example').click()")
    judged(page, "example.wav")
    page.wait("document.querySelector('#waveform svg')")
    page.ask("document.querySelectorAll('details').forEach(details => details.open = true)")
    page.ask(f"{ERROR.removesuffix('.textContent')}.textContent = 'As errors look.'")
    page.choose("#relisten-file", heard / "logs/synth/l/test.csv")
    page.wait("document.querySelector('#relisten table')")
    for tab, width, scheme in itertools.product(("genre", "relisten"), WIDTHS, SCHEMES):
        page.ask(f"document.querySelector('#tab-{tab}').click()")
        page.show(width, scheme)
        where = f"{tab} at {width} px, {scheme}"
        assert page.ask("document.documentElement.scrollWidth") == page.ask("innerWidth") == width, where
        texts = page.ask(CONTRASTS)
        assert len(texts) > 20, where
        faint = [text for contrast, _, text in texts if contrast < 4.5]
        assert not faint, f"{where}: {faint}"
        small = [text for _, size, text in texts if size < 12]
        assert not small, f"{where}: {small}"
        beyond = page.ask(BEYOND)
        assert not beyond, f"{where}: {beyond}"
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"


def test_nothing_is_asked_of_others_and_nothing_goes_wrong_unseen(page: Browser, url: str, tracks: Path) -> None:
    """After this and all tests before: no error in the console but of what the server refused, no request off the host."""
    page.choose("#file", tracks / "b.mp3")
    judged(page, "b.mp3")
    browser = page
    asked = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    asked += [event["url"] for event in browser.told("Network.webSocketCreated")]
    assert len(asked) > 10
    here = (
        url + "/",
        url.replace("http", "ws") + "/",
        f"blob:{url}/",
        "about:",
        "data:",
    )  # the last: icons that the browser draws its player with
    assert not [address for address in asked if not address.startswith(here)]
    assert browser.told("Runtime.exceptionThrown") == []
    assert browser.told("Runtime.consoleAPICalled") == []
    entries = [event["entry"] for event in browser.told("Log.entryAdded")]
    refused = ("/v1/genre", "/v1/relisten", "/v1/stream")
    assert not [entry for entry in entries if not any(path in entry.get("url", "") + entry["text"] for path in refused)]
    policy = httpx.get(url, trust_env=False).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
