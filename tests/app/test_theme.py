"""The app's colours, and that they are there from the first moment."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import antiphon.app
from antiphon.app.theme import THEME_COOKIE, avatar_color, initials

from .corner import Corner, open_corner

CSS = (Path(antiphon.app.__file__).parent / "theme.css").read_text(encoding="utf-8")
ERRORS_CSS = (Path(antiphon.app.__file__).parent / "errors.css").read_text(encoding="utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


def palette(selector: str) -> dict[str, str]:
    """The colours that a rule of theme.css sets, by name."""
    rule = re.search(rf"^{re.escape(selector)} {{(.*?)^}}", CSS, re.MULTILINE | re.DOTALL)
    assert rule is not None
    return dict(re.findall(r"--ap-([\w-]+): (#\w{6});", rule[1]))


def luminance(red: float, green: float, blue: float) -> float:
    """Of linear light, as WCAG weighs it."""
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def of_hex(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return luminance(*(p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts))


def of_oklch(lightness: float, chroma: float, hue: float) -> float:
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
    )
    return luminance(*(min(1.0, max(0.0, part)) for part in linear))


def contrast(one: float, other: float) -> float:
    light, dark = max(one, other), min(one, other)
    return (light + 0.05) / (dark + 0.05)


TEXT_ON = {
    "text": ("bg", "surface", "inset", "warning-soft", "negative-soft", "positive-soft"),
    "muted": ("bg", "surface", "inset"),
    "accent": ("bg", "surface", "inset"),
    "on-primary": ("primary",),
    "on-soft": ("soft", "warning-soft", "negative-soft"),
    "positive": ("bg", "surface", "positive-soft"),
    "warning": ("bg", "surface", "warning-soft"),
    "negative": ("bg", "surface", "negative-soft"),
}
SHAPE_ON = {"online": ("bg", "surface"), "control": ("bg", "surface", "inset")}


@pytest.mark.parametrize("selector", ["body", "body.body--dark"])
def test_every_text_and_shape_stands_out_from_what_it_is_on(selector: str) -> None:
    colors = palette(selector)
    weak = [
        (name, ground)
        for pairs, least in ((TEXT_ON, 4.5), (SHAPE_ON, 3.0))
        for name, grounds in pairs.items()
        for ground in grounds
        if contrast(of_hex(colors[name]), of_hex(colors[ground])) < least
    ]
    assert weak == []


def test_both_themes_know_the_same_colours() -> None:
    assert palette("body").keys() == palette("body.body--dark").keys()


def test_the_error_dialog_s_own_colours_are_the_theme_s() -> None:
    known = set(palette("body").items()) | set(palette("body.body--dark").items())
    own = re.findall(r"var\(--ap-([\w-]+), (#\w{6})\)", ERRORS_CSS)
    assert own
    assert [pair for pair in own if pair not in known] == []


def test_white_initials_can_be_read_on_every_colour() -> None:
    shown = {avatar_color(number) for number in range(5_000)}
    assert len(shown) > 100
    for color in shown:
        lightness, chroma, hue = map(float, color.removeprefix("oklch(").rstrip(")").split())
        assert contrast(1.0, of_oklch(lightness, chroma, hue)) >= 4.5


def test_an_id_has_one_colour_however_it_is_spelled() -> None:
    assert avatar_color(7) == avatar_color("7")
    assert avatar_color(7) != avatar_color(8)


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("Ali Qo'chqorov", "AQ"),
        ("eve", "E"),
        ("Anna Maria de la Cruz", "AC"),
        ("  ", "?"),
        ("", "?"),
        ("(team) red", "R"),
        ("🚀", "🚀"),
        ("李 小龍", "李小"),
    ],
)
def test_initials(name: str, letters: str) -> None:
    assert initials(name) == letters


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("chosen", "system", "background"),
    [
        ("dark", "light", "rgb(17, 19, 26)"),
        ("light", "dark", "rgb(243, 244, 249)"),
        ("system", "dark", "rgb(17, 19, 26)"),
        ("<script>", "light", "rgb(243, 244, 249)"),
    ],
)
async def test_the_first_paint_has_the_chosen_colour_before_any_script_has_run(
    corner: Corner, chosen: str, system: str, background: str
) -> None:
    context = await corner.browser.new_context(
        java_script_enabled=False, color_scheme="dark" if system == "dark" else "light"
    )
    await context.add_cookies([{"name": THEME_COOKIE, "value": chosen, "url": corner.url}])
    page = await context.new_page()
    answer = await page.goto(f"{corner.url}/avatars")
    assert answer is not None
    assert "<script>light" not in await answer.text()
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert await page.evaluate(ground) == background
    await context.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_keeps_that_colour_once_its_scripts_run(corner: Corner) -> None:
    async with corner.tab("/avatars", dark=True) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(ground) == "rgb(17, 19, 26)"
        await page.emulate_media(color_scheme="light")
        await page.wait_for_function(f"{ground} === 'rgb(243, 244, 249)'")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_message_list_gives_people_the_same_colours(corner: Corner) -> None:
    async with corner.tab("/avatars") as page:
        await page.locator(".ml-message").nth(3).wait_for()
        color = "all => all.map(e => getComputedStyle(e).backgroundColor)"
        ours = await page.locator(".other").evaluate_all(color)
        theirs = await page.locator(".ml-avatar span").evaluate_all(color)
        assert len(set(ours)) == 4
        assert [found for found in theirs if found in ours] == ours
