"""The page in a browser: no complaints, a line that moves, nothing wider than a telephone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unet.report.chromium import Tab, chromium, program
from tests.unet.report.made_run import make_run
from unet.report.write import write_report

pytestmark = pytest.mark.skipif(not program(), reason="Chromium is missing: apt install chromium")

KINDS = ("membranes", "cells", "classes")


@pytest.fixture(scope="module")
def tab():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A finished run of each kind, and one that has only begun."""
    folder = tmp_path_factory.mktemp("runs")
    made = {kind: write_report(make_run(folder / kind, kind)) for kind in KINDS}
    begun = make_run(folder / "begun")
    for name in ("held-out.h5", "scores.json", "segment.json", "weights.caffemodel"):
        (begun / name).unlink()
    shutil.rmtree(begun / "training-2")
    return {**made, "begun": write_report(begun)}


@pytest.fixture(params=[(1200, 900, False), (390, 844, True)], ids=["desktop", "telephone"])
def screen(request, tab) -> Tab:
    width, height, mobile = request.param
    tab.size(width, height, mobile)
    return tab


@pytest.mark.parametrize("run", [*KINDS, "begun"])
@pytest.mark.parametrize("dark", [False, True])
def test_it_loads_without_complaint_and_asks_nobody(screen, runs, run, dark):
    width = screen.value("innerWidth")
    screen.size(width, 844, mobile=width < 600, dark=dark)
    screen.complaints.clear()
    screen.requests.clear()
    screen.open(runs[run])
    assert screen.complaints == []
    assert [url[:5] for url in screen.requests if not url.startswith("data:")] == ["file:"]
    # Every picture that is shown is one.
    broken = "[...document.images].filter(i => i.complete && i.src && !i.naturalWidth).length"
    assert screen.value(broken) == 0


@pytest.mark.parametrize("run", [*KINDS, "begun"])
def test_nothing_is_wider_than_the_screen(screen, runs, run):
    screen.open(runs[run])
    assert screen.value("document.documentElement.scrollWidth") == screen.value("innerWidth")
    # Only what scrolls by itself may go on.
    beyond = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".wide")
        && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 90))"""
    assert screen.value(beyond) == []


def test_text_in_a_chart_is_not_cut_off(screen, runs):
    screen.open(runs["cells"])
    cut = """[...document.querySelectorAll("svg.chart")].flatMap(chart => {
        const card = chart.closest("section").getBoundingClientRect();
        return [...chart.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()])
            .filter(([, b]) => b.left < card.left || b.right > card.right)
            .map(([t]) => t.textContent)})"""
    assert screen.value(cut) == []


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_from_what_is_behind_them(tab, runs, dark):
    tab.size(1200, 900, dark=dark)
    tab.open(runs["membranes"])
    # WCAG 2.1's contrast of the text's colour and the card's.
    ratio = """(() => {
        const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => {
            v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const card = light(getComputedStyle(document.querySelector("section")).backgroundColor);
        const some = ["p", ".soft", "td", "td small", "a", "td.worst", "h2", ".fine p", "pre"];
        return Math.min(...some.map(s => {
            const text = light(getComputedStyle(document.querySelector("section " + s)).color);
            return (Math.max(text, card) + 0.05) / (Math.min(text, card) + 0.05) })) })()"""
    assert tab.value(ratio) >= 4.5


def line(tab: Tab) -> float:
    """Where the line stands, as a share of the width of the slice."""
    return tab.value(
        """(() => { const of = s => document.querySelector(s).getBoundingClientRect();
        const all = of(".stage"), line = of(".stage .divider");
        return (line.left + line.width / 2 - all.left) / all.width })()"""
    )


def shown(tab: Tab, side: str) -> str | None:
    """The layer that is on a side of the line; None: only the picture itself."""
    return tab.value(
        f"""(() => {{ const image = document.querySelector(".stage .{side}");
        const store = [...document.querySelectorAll(".store img")];
        return image.hidden ? null
            : store.filter(s => s.src === image.src).map(s => s.dataset.layer)[0] }})()"""
    )


def choose(tab: Tab, group: str, value: object) -> None:
    selector = f'.viewer input[name="{group}"][value="{value}"]'
    tab.value(f"document.querySelector('{selector}').click()")


def test_keys_move_the_line(screen, runs):
    screen.open(runs["membranes"])
    assert line(screen) == pytest.approx(0.5, abs=0.01)
    screen.value("document.querySelector('.stage input').focus()")
    for _ in range(10):
        screen.key("ArrowRight")
    assert line(screen) == pytest.approx(0.6, abs=0.01)
    said = screen.value("document.querySelector('.stage input').getAttribute('aria-valuetext')")
    assert said == "Raw on 60 % of the width, then Differences"
    screen.key("Home")
    assert line(screen) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("way, width", [("touch", 390), ("drag", 1200)])
def test_a_finger_and_a_mouse_move_the_line(tab, runs, way, width):
    tab.size(width, 844, mobile=way == "touch")
    tab.open(runs["membranes"])
    tab.value(
        "document.querySelector('.stage').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    left, top, width, height = tab.value(
        "(b => [b.left, b.top, b.width, b.height])"
        "(document.querySelector('.stage').getBoundingClientRect())"
    )
    # Also where the line is not.
    middle = top + height / 2
    getattr(tab, way)(*((left + share * width, middle) for share in (0.2, 0.4, 0.6, 0.83)))
    assert line(tab) == pytest.approx(0.83, abs=0.01)
    # From there keys go on.
    tab.key("ArrowLeft")
    assert line(tab) == pytest.approx(0.82, abs=0.01)


def test_what_is_left_and_right_of_the_line_can_be_chosen(screen, runs):
    screen.open(runs["cells"])
    assert (shown(screen, "left"), shown(screen, "right")) == (None, "differences")
    choose(screen, "left", "truth")
    choose(screen, "right", "result")
    assert (shown(screen, "left"), shown(screen, "right")) == ("truth", "result")
    tags = screen.value("[...document.querySelectorAll('.stage .tag')].map(t => t.textContent)")
    assert tags == ["Truth", "Result"]
    # The one ends where the other begins.
    clip = "getComputedStyle(document.querySelector(`.stage .${side}`)).clipPath"
    clips = screen.value(f"['left', 'right'].map(side => {clip})")
    assert clips == ["inset(0px 50% 0px 0px)", "inset(0px 0px 0px 50%)"]


def test_another_slice_is_shown_with_its_numbers(screen, runs):
    screen.open(runs["membranes"])
    before = screen.value("document.querySelector('.stage .raw').src")
    choose(screen, "slice", 1)
    after = screen.value("document.querySelector('.stage .raw').src")
    assert after != before
    assert after == screen.value("document.querySelector('.store[data-slice=\"1\"] img').src")
    words = (
        "[...document.querySelectorAll('.of-slice')].filter(p => !p.hidden).map(p => p.innerText)"
    )
    (said,) = screen.value(words)
    assert said.startswith("Slice 5:")


def test_values_of_a_curve_are_told_where_it_is_pointed_at(screen, runs):
    screen.open(runs["cells"])
    # The threshold's curve goes through (0.4, 0.9), in its middle.
    told = screen.value(
        """(() => { const chart = document.querySelector('svg[aria-label="score over threshold"]');
        const box = chart.querySelector("path").getBoundingClientRect();
        chart.dispatchEvent(new PointerEvent("pointermove", {
            clientX: box.left + box.width * 0.55}));
        return [chart.querySelector(".said").textContent,
            getComputedStyle(chart.querySelector(".said")).visibility] })()"""
    )
    assert told == ["threshold 0.4: 0.900", "visible"]


def test_a_place_leads_to_its_slice(screen, runs):
    screen.open(runs["membranes"])
    screen.value("document.querySelector('.place [data-show=\"1\"]').click()")
    assert screen.value("document.querySelector('input[name=slice]:checked').value") == "1"


def test_a_command_can_be_copied(tab, runs):
    tab.size(1200, 900)
    tab.open(runs["cells"])
    told = tab.value(
        """(async () => { const box = document.querySelector(".command");
        box.querySelector("button").click();
        await new Promise(done => setTimeout(done, 100));
        return [getSelection().toString(), box.querySelector("button").textContent] })()"""
    )
    assert told[0] == "unet segment STACK --model . -o probabilities.tif --instances cells.tif"
    assert told[1] in ("Copied", "Selected")
