"""The console as an operator uses it: by pointer, by keys alone, in a narrow window, in the dark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.console.browser import CONTROL, ENTER, TAB, Browser
from tests.console.conftest import Console

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> MARK-HARM"


def go(browser: Browser, name: str) -> None:
    browser.see(f"nav a[href='#{name}']").click()
    browser.see(f"#view-{name} h1")


def test_a_message_is_tried(browser: Browser) -> None:
    browser.see("#try-text").send_keys("Tell me MARK-HARM now")
    browser.see("#view-try button.main").click()
    browser.see(".verdict .pill", "Refused")
    assert "deceiving anyone for money" in browser.see("blockquote").text
    harmful = browser.see(".bars li", "harmful")
    assert "0.95" in harmful.text
    assert "refuse" in harmful.text
    assert browser.see("mark").text == "MARK-HARM"
    assert "words" in browser.see("table.last tbody tr", "Triage").text
    browser.see(".opinion [data-verdict=wrong_refusal]").click()
    browser.see("#said.shown", "Stored: wrong refusal")


def test_the_policy_is_chosen_and_a_reply_is_tried(browser: Browser) -> None:
    browser.see("#try-policy").send_keys("second")
    browser.see("input[value=assistant]").click()
    browser.see("#try-before").send_keys("Which fund is good? MARK-ADVICE")
    browser.see("#try-text").send_keys("You should definitely buy MARK-TOXIC")
    browser.see("#view-try button.main").click()
    browser.see(".verdict .pill", "Refused")
    assert "second@" in browser.see("#view-try .facts").text
    assert "Reply" in browser.see("table.last tbody").text


def test_a_refusal_appears_while_one_looks_and_is_spoken_of_by_click_and_by_key(
    browser: Browser, console: Console
) -> None:
    go(browser, "refusals")
    first = console.ask(HOSTILE).headers["x-request-id"]
    row = browser.see(".feed .entry", first, seconds=10)
    assert HOSTILE in row.text  # as text
    assert browser.driver.title == "hhh-gateway console"
    assert browser.all(".feed img, .feed script") == []
    row.find_element("css selector", "[data-verdict=wrong_refusal]").click()
    browser.see("#said.shown", "Stored: wrong refusal")
    second = console.ask("again MARK-HARM").headers["x-request-id"]
    browser.see(".feed .entry", second, seconds=10)
    browser.driver.execute_script("document.activeElement.blur()")
    browser.press("j", "k", "k", "k", "c")  # the newest, however many there are
    browser.see("#said.shown", "Stored: correct")
    said = {row["request_id"]: row["feedback"] and row["feedback"]["verdict"] for row in console.decisions()}
    assert (said[first], said[second]) == ("wrong_refusal", "correct")
    allowed = console.ask("What is an index fund?").headers["x-request-id"]
    browser.see("input[value='allow,modify']").click()
    browser.see(".feed .entry", allowed, seconds=10).click()
    browser.press("m")
    browser.see("#said.shown", "Stored: missed harm")
    browser.see("#find").send_keys(first, ENTER)
    browser.wait(lambda: len(browser.all(".feed .entry")) == 1)
    assert browser.see(".say[aria-pressed=true]").text.startswith("Wrong refusal")


def test_the_matrix_is_run_and_what_was_said_is_counted(browser: Browser, console: Console) -> None:
    go(browser, "matrix")
    browser.see("#view-matrix .empty", "have not run yet")
    browser.see("body").send_keys("r")
    browser.see("#said.shown", "The probes have run")
    assert "1 of 2" in browser.see(".figures").text
    assert "Harmless <b>MARK-HARM</b>" in browser.see("details .said").text
    id_ = console.ask("spoken of MARK-HARM").headers["x-request-id"]
    console.client.post("/v1/feedback", json={"request_id": id_, "verdict": "correct"})
    browser.see("nav a[href='#try']").click()
    go(browser, "matrix")
    browser.see("#view-matrix table.matrix", "Harmful")


def test_a_reload_that_failed_is_told(browser: Browser, console: Console) -> None:
    go(browser, "policies")
    assert browser.see("article.panel", "finance").text.count("default") == 1
    path = console.rails / "finance" / "policy.yml"
    before = path.read_text()
    path.write_text(before + "\nunheard_of: 1\n")
    browser.see(".reload.red pre", "unheard_of", seconds=20)
    path.write_text(before)


def test_the_key(browser: Browser, console: Console) -> None:
    browser.restart()
    for key, why in (("hhh-wrong", "does not accept this key"), (console.user, "not an admin's")):
        browser.see("#key-input").clear()
        browser.see("#key-input").send_keys(key, ENTER)
        browser.see("#key-error", why)
    refused = [line for line in browser.trouble() if "401" in line or "403" in line]
    assert len(refused) == len(browser.trouble()) == 2
    browser.trouble().clear()
    assert browser.driver.execute_script("return sessionStorage.length") == 0
    browser.see("#key-input").clear()
    browser.see("#key-input").send_keys(console.admin, ENTER)
    browser.see("#try-text")
    assert browser.driver.execute_script("return localStorage.length + document.cookie.length") == 0


def test_keys_alone_will_do(browser: Browser, console: Console) -> None:
    browser.open(console.url)  # the same tab, so the key is still known
    browser.see("#try-text")
    walked = []
    for _ in range(9):
        browser.press(TAB)
        walked.append(browser.focused())
    assert [one["href"] for one in walked[:5]] == ["#main", "#try", "#refusals", "#matrix", "#policies"]
    assert all(one["outline"] != "none" for one in walked if one["type"] != "radio")
    browser.driver.execute_script("document.activeElement.blur()")
    browser.press("/")
    assert browser.focused()["id"] == "try-text"
    browser.press("How? MARK-UNSURE 1234")  # digits in a text are no shortcuts
    browser.chord(CONTROL, ENTER)
    browser.see("table.last", "Message")
    browser.driver.execute_script("document.activeElement.blur()")
    for digit, name in enumerate(("try", "refusals", "matrix", "policies"), 1):
        browser.press(str(digit))
        browser.see(f"#view-{name} h1")
    browser.press("?")
    browser.see("#shortcuts h2")
    browser.press(ENTER)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_window_is_too_narrow(browser: Browser, console: Console, scheme: str) -> None:
    """At each width, in each section, with what is long in it. `SHOTS` names a folder for pictures."""
    console.ask("MARK-HARM " + "a_very_long_word_without_a_space" * 8)
    browser.see("#try-text").send_keys("Tell me MARK-HARM now " + "and_on_" * 30)
    browser.see("#view-try button.main").click()
    browser.see("mark")
    for name in ("try", "refusals", "matrix", "policies"):
        go(browser, name)
        browser.see({"refusals": ".entry", "policies": "article"}.get(name, ".panel"))
        for width in (360, 768, 1440):
            browser.size(width, 900, scheme)
            assert browser.overflow() == 0, (name, width)
            if folder := os.environ.get("SHOTS"):
                browser.driver.save_screenshot(str(Path(folder) / f"{name}-{width}-{scheme}.png"))
    assert contrasts(browser) == []


def contrasts(browser: Browser) -> list[str]:
    """Texts on the page that are below WCAG's AA for what is behind them."""
    script = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
    found: list[str] = browser.driver.execute_script(script)
    return found
