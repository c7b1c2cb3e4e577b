"""The page in a real browser: what a reader sees and can do, and what hostile texts cannot."""

import json
import re

import pytest
from browsing import headless_browser, requests, resize
from click.testing import CliRunner
from galleries import ESCAPES, SCRIPT, gallery_run
from ledgers import complete, image, input_shard, new_run, records_of, web

from capfilt.cli import cli
from capfilt.config import Policy, dump
from capfilt.query import open_run
from capfilt.report.make import make_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run and its report."""
    folder = tmp_path_factory.mktemp("report")
    run = gallery_run(folder)
    with open_run(run.root) as opened:
        make_report(opened, f"{folder}/report.html", samples=24)
    return folder


@pytest.fixture(scope="module")
def chrome():
    with headless_browser() as chrome:
        yield chrome


@pytest.fixture
def page(chrome, folder):
    """The page, freshly loaded on a desktop."""
    resize(chrome, 1280, 900)
    chrome.get((folder / "report.html").as_uri())
    return chrome


def move(page, role: str, value: float) -> None:
    """Move a slider as a hand does."""
    page.execute_script(
        "const slider = document.getElementById(arguments[0]); slider.value = arguments[1];"
        "slider.dispatchEvent(new Event('input'))",
        f"cut-{role}",
        value,
    )


def press(page, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def text_of(page, selector: str) -> str:
    return page.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def counts(page) -> tuple[int, ...]:
    """Return what the page says is kept: web texts, synthetic texts, images."""
    places = ("[data-source=own] .count", "[data-source=synthetic] .count", "#images")
    return tuple(int(text_of(page, place).replace(",", "")) for place in places)


def test_nothing_is_asked_for_but_the_file_itself(page, folder):
    requests(page)
    page.get((folder / "report.html").as_uri())
    move(page, "own", 0.3)
    page.execute_script("document.querySelector('.card').click()")

    assert requests(page) == [(folder / "report.html").as_uri()]
    assert page.get_log("browser") == []
    assert page.execute_script("return [...document.images].every(image => image.src.startsWith('data:image/webp'))")


def test_what_the_policy_of_the_page_forbids_is_refused(page):
    """The content-security policy in the file holds: else the test above could not fail."""
    page.execute_script(
        "const script = document.createElement('script'); script.textContent = 'document.title = 1';"
        "document.body.append(script); const image = new Image(); image.src = 'https://example.org/x.png';"
        "document.body.append(image)"
    )

    assert len([entry for entry in page.get_log("browser") if "Content Security Policy" in entry["message"]]) == 2
    assert page.title == "run · capfilt report"


def test_hostile_texts_are_shown_as_text(page):
    shown = page.execute_script("return [...document.querySelectorAll('.words, .facts')].map(e => e.textContent)")

    assert page.title == "run · capfilt report"
    assert len(page.find_elements("tag name", "script")) == 2
    assert not page.find_elements("css selector", "a[href^=javascript], .words b, .words img")
    assert any(SCRIPT in text for text in shown)
    visible = ESCAPES.replace("\x1b", "<U+001B>").replace("\x07", "<U+0007>")
    visible = visible.replace("\u202e", "<U+202E>").replace("\u2066", "<U+2066>")
    assert any(visible in text for text in shown)
    assert any("javascript:alert(1)//<U+202E>" in text for text in shown)


def test_a_long_text_is_folded_and_what_is_left_out_is_told(page):
    folded = page.find_element("css selector", "#random details")

    assert len(folded.text) < 40
    folded.find_element("tag name", "summary").click()
    assert "many words many words" in folded.text
    assert "20,000 characters are left out here; they are in the ledger." in folded.text


def test_what_cannot_be_seen_is_counted_as_the_text_has_it(chrome, tmp_path):
    """A character that is shown by its number takes eight of the page, and a mark that is cut none."""
    shards = [input_shard(tmp_path, [image(0), image(1)])]
    run = new_run(tmp_path, shards)
    complete(run, shards[0], records_of(shards[0]), [web(0, text="\u202e" * 170), web(1, text="a" + "\u0301" * 999)])
    with open_run(run.root) as opened:
        make_report(opened, f"{tmp_path}/report.html")
    chrome.get((tmp_path / "report.html").as_uri())

    folded = chrome.execute_script("return [...document.querySelectorAll('#random summary')].map(e => e.textContent)")
    assert sorted(folded) == ["10 more characters", "840 more characters"]


def test_the_headline_figures_are_those_of_the_ledger(page, folder):
    values = dict(
        page.execute_script(
            "return [...document.querySelectorAll('.figures div')].map(div =>"
            "  [div.querySelector('dt').textContent, div.querySelector('.value').textContent])"
        )
    )

    with open_run(f"{folder}/run") as opened:
        attempted, images = opened.sql("SELECT count(*), count_if(texts_kept > 0) FROM samples").fetchall()[0]
        noise = dict(opened.sql("SELECT source, avg((NOT kept)::int) FROM candidates GROUP BY ALL").fetchall())
    assert values == {
        "Samples attempted": str(attempted),
        "Scored": "22",
        "Failed": "2",
        "Images with a kept text": str(images),
        "Noise of web texts": f"{100 * noise['web']:.1f}\xa0%",
        "Noise of synthetic texts": f"{100 * noise['synthetic']:.1f}\xa0%",
    }


@pytest.mark.parametrize(("own", "synthetic"), [(0.5, 0.5), (0.3, 0.3), (0.0, 1.0), (0.95, 0.2), (0.48, 0.55)])
def test_the_sliders_count_what_the_policy_keeps(page, folder, own, synthetic):
    move(page, "own", own)
    move(page, "synthetic", synthetic)

    with open_run(f"{folder}/run", Policy(web_itm=own, synthetic_itm=synthetic)) as opened:
        kept = dict(opened.sql("SELECT source, count_if(kept) FROM candidates GROUP BY ALL").fetchall())
        images = opened.samples.filter("texts_kept > 0").shape[0]
    assert counts(page) == (kept["web"], kept["synthetic"], images)
    assert text_of(page, "#settings") == f"web_itm: {own:g}\nsynthetic_itm: {synthetic:g}"
    assert shown_verdicts(page) == verdicts(folder, Policy(web_itm=own, synthetic_itm=synthetic))


def shown_verdicts(page) -> list[tuple[str, ...]]:
    """Return what the page says of the second shard's texts: the sample, the text, its mark and reason."""
    shown = page.execute_script(
        "return [...document.querySelectorAll('#random .card')].filter(c => c.textContent.includes('00001, position'))"
        ".flatMap(card => [...card.querySelectorAll('.text')].map(text => [card.getAttribute('aria-label'),"
        " ...['.words', '.mark', '.reason'].map(part => text.querySelector(part).textContent.trim())]))"
    )
    return sorted(map(tuple, shown))


def verdicts(folder, policy: Policy) -> list[tuple[str, ...]]:
    """Return the same by the policy."""
    with open_run(f"{folder}/run", policy) as opened:
        rows = opened.sql("SELECT key, text, kept, reason FROM candidates WHERE shard = '00001'").fetchall()
    reasons = {None: "", "low_itm": ""}
    return sorted(
        (f"sample {key}", text, "✓" if kept else "✗", reasons.get(r, (r or "").replace("_", " ")))
        for key, text, kept, r in rows
    )


@pytest.mark.parametrize(
    "rules",
    [
        *({"mix": name} for name in ("web_else_synthetic", "best", "web_only", "synthetic_only", "weighted")),
        {"mix": "top_k", "top_k": 2, "drop_duplicates": False, "min_words": 2},
        {"mix": "both", "web_itc": 0.0},  # one text fails it, beside the threshold of P(match) or alone
    ],
    ids=lambda rules: rules["mix"],
)
def test_the_sliders_count_what_recut_keeps_under_every_mix(chrome, folder, tmp_path, rules):
    with open_run(f"{folder}/run", Policy(**rules)) as opened:
        make_report(opened, f"{tmp_path}/report.html", samples=24)
    resize(chrome, 1280, 900)
    chrome.get((tmp_path / "report.html").as_uri())

    for own, synthetic in ((0.5, 0.5), (0.3, 0.2), (0.9, 0.3), (0.0, 0.0)):
        policy = Policy(name="moved", web_itm=own, synthetic_itm=synthetic, **rules)
        (tmp_path / "policy.yaml").write_text(dump(policy))
        command = ["recut", f"{folder}/run", "--policy", f"{tmp_path}/policy.yaml", "--dry-run", "--json"]
        found = json.loads(CliRunner().invoke(cli, command).output)
        move(chrome, "own", own)
        move(chrome, "synthetic", synthetic)

        kept = [found["sources"][source]["kept_after"] for source in ("web", "synthetic")]
        assert counts(chrome) == (*kept, found["samples_after"]), (own, synthetic)
        assert shown_verdicts(chrome) == verdicts(folder, policy), (own, synthetic)


def test_the_way_back_leads_to_the_policy(page):
    before, button = counts(page), page.find_element("id", "reset")
    assert not button.is_enabled()

    move(page, "own", 0.95)
    assert counts(page) != before
    assert page.find_elements("css selector", ".changed")
    button.click()

    assert counts(page) == before
    assert not page.find_elements("css selector", ".changed")


def test_a_verdict_is_told_without_colour(page):
    marks = page.execute_script(
        "return [...document.querySelectorAll('.cards .text')].map(text => [text.classList.contains('kept'),"
        " text.querySelector('.mark').textContent, text.querySelector('.mark').getAttribute('aria-label')])"
    )

    assert {tuple(mark) for mark in marks} == {(True, "✓", "kept"), (False, "✗", "rejected")}


def test_the_keyboard_reaches_every_sample(page):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    def focused() -> str:
        return page.execute_script("return document.activeElement.getAttribute('aria-label')")

    def comes_to(name: str) -> None:  # a browser handles keys, and the end of a dialog, a little later
        WebDriverWait(page, 10).until(lambda _: focused() == name)

    names = page.execute_script("return [...document.querySelectorAll('#random .card')].map(c => c.ariaLabel)")
    page.execute_script("document.querySelector('#random .card').focus()")
    press(page, Keys.ARROW_RIGHT)
    comes_to(names[1])
    press(page, Keys.ARROW_DOWN)
    comes_to(names[6])
    press(page, Keys.END)
    comes_to(names[-1])
    press(page, Keys.HOME, Keys.ENTER, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    shown = "return document.querySelector('#closeup .facts dd')?.textContent"
    WebDriverWait(page, 10).until(lambda _: f"sample {page.execute_script(shown)}" == names[2])
    press(page, Keys.ESCAPE)
    comes_to(names[2])
    assert not page.execute_script("return document.getElementById('closeup').open")
    press(page, Keys.SHIFT + Keys.TAB)
    WebDriverWait(page, 10).until(lambda _: focused() not in names)


def test_focus_is_seen(page):
    from selenium.webdriver import Keys

    press(page, *[Keys.TAB] * 3)

    assert page.execute_script("return getComputedStyle(document.activeElement).outlineWidth") == "2px"


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_no_page_is_wider_than_its_window(page, width):
    resize(page, width, 800)

    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(page, scheme):
    """WCAG 2.1 asks for 4.5 to 1, success criterion 1.4.3."""
    resize(page, 1280, 900, scheme)

    pairs = page.execute_script(
        "const ground = e => { const c = getComputedStyle(e).backgroundColor;"
        "  return c === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : c };"
        "return ['h1', '.how', '.context', '.kept .score', '.kept .reason', '.rejected .score', '.rejected .reason',"
        "  '.words', '.noimage', '.failure', '.outcome code', '.axis span', 'summary', 'thead th', 'pre']"
        ".map(s => document.querySelector(s)).map(e => [e.className, getComputedStyle(e).color, ground(e)])"
    )

    assert not [(name, ratio) for name, *colours in pairs if (ratio := contrast(*colours)) < 4.5]


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours as a browser states them."""
    values = []
    for colour in (first, second):
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        values.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(values) / min(values)


def test_failures_and_lost_images_are_told(page):
    table = page.find_element("class name", "reasons").text
    assert table.splitlines()[2:] == ["too_many_pixels 1 4.2 %", "truncated 1 4.2 %"]
    assert "the file ends inside <b>it" in page.find_element("id", "failures").text
    gone = page.find_elements("css selector", "#random .noimage")
    assert {element.text for element in gone} >= {"the shard is gone, has changed or cannot be read"}
    assert (
        "Without their image: 8 samples; the shard is gone, has changed or cannot be read"
        in page.find_element("class name", "notes").text
    )
