"""The chat page in a real Chromium, where there is one: a person writes, stops, edits, and the model's text is text."""

import json
import shutil
import time

import pytest
from served_models import Speaker, make_served, running

from gptjax.serving.page import page_and_policy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
HOSTILE = "**bold** <img src=x onerror='document.title=1'><script>document.title=2</script>\n\n- one\n- two\n\n"
HOSTILE += "```\nx < y\n```"


def test_the_policy_allows_exactly_the_script_and_style_of_the_page():
    html, policy = page_and_policy()
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 2 and "unsafe" not in policy
    for forbidden in ("innerHTML", "http://", "https://", "eval(", " style=", " onclick=", "@import"):
        assert forbidden not in html.replace('onclick") made', "")


@pytest.fixture(scope="module")
def served():
    return make_served(engine=Speaker)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(served, browser):
    """The page, which has kept nothing of earlier tests; fails the test if it reports an error."""
    served.engine.slow, served.engine.text, served.engine.asked = False, HOSTILE, []
    with running(served) as (address, _):
        page, problems = browser.new_context().new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if is_problem(message) else None)
        page.goto(address)
        page.wait_for_selector("#model option", state="attached")
        yield page
        page.context.close()
        assert problems == []


def is_problem(message):
    """Whether a message of the console is about the page itself, not about a status that the server answered."""
    return message.type == "error" and "status of 429" not in message.text


def wait(tab, condition):
    """Waits until the condition holds. Playwright's own way evaluates strings in the page, which its policy forbids."""
    deadline = time.monotonic() + 30
    while not tab.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def test_a_conversation_in_a_browser(tab, served):
    tab.fill("#text", "Hello")
    tab.press("#text", "Shift+Enter")
    tab.press("#text", "Enter")
    tab.wait_for_selector(".turn.assistant pre code")
    assert tab.inner_text(".turn.assistant strong") == "bold" and tab.locator(".turn.assistant li").count() == 2
    assert tab.inner_text(".turn.assistant pre code") == "x < y"
    assert tab.locator(".turn.assistant img, .turn.assistant script").count() == 0 and tab.title() == "gptjax"
    assert "<img src=x" in tab.inner_text(".turn.assistant")  # a text, as the model wrote it
    tab.get_by_role("button", name="Regenerate").click()
    wait(tab, "!running")
    tab.get_by_role("button", name="Edit", exact=True).click()
    tab.fill("#text", "Bye")
    tab.press("#text", "Enter")
    wait(tab, "!running")
    assert len(served.engine.asked) == 3 and tab.locator(".turn.user").count() == 1
    assert tab.inner_text(".turn.user .body") == "Bye"
    tab.reload()  # the conversation is still there
    tab.wait_for_selector(".turn.assistant pre code")
    tab.click("#new")
    assert tab.locator("#list li").count() == 2 and tab.locator(".turn").count() == 0
    tab.on("dialog", lambda dialog: dialog.accept("Renamed") if dialog.type == "prompt" else dialog.accept())
    tab.get_by_role("button", name="Rename Hello").click()
    tab.get_by_role("button", name="Renamed", exact=True).click()
    tab.get_by_role("button", name="Delete Renamed").click()
    assert tab.locator("#list li").count() == 1


def test_esc_stops_an_answer_and_keeps_what_came(tab, served):
    served.engine.slow = True
    tab.fill("#text", "Hello")
    tab.press("#text", "Enter")
    wait(tab, "running && running.answer.text")
    tab.keyboard.press("Escape")
    wait(tab, "!running")
    assert "Stopped" in tab.inner_text(".turn.assistant") and "bold" in tab.inner_text(".turn.assistant")


def test_a_full_context_forgets_the_oldest_turns_and_says_so(tab, served):
    served.engine.text = "An answer. " * 12
    for question in ("first", "second", "third"):
        tab.fill("#text", f"The {question} question")
        tab.press("#text", "Enter")
        wait(tab, "!running && current().turns.at(-1).text")
    prompts = [served.generator.tokenizer.decode(prompt) for prompt, _ in served.engine.asked]
    assert "first" in prompts[1] and "first" not in prompts[2] and "second" in prompts[2]
    (note,) = tab.locator(".turn .note").all_inner_texts()
    assert note == "The context is full: the model did not read the first 2 messages."


def test_settings_reach_the_server_and_survive(tab, served):
    tab.click("#settings")
    tab.fill("#system", "Be brief")
    tab.fill("#temperature", "0.25")
    tab.fill("#seed", "7")
    tab.get_by_role("button", name="Done").click()
    tab.fill("#text", "Hi")
    tab.press("#text", "Enter")
    wait(tab, "!running && current().turns.length == 2")
    prompt, params = served.engine.asked[-1]
    assert (params.temperature, params.seed) == (0.25, 7)
    assert "Be brief" in served.generator.tokenizer.decode(prompt)
    assert json.loads(tab.evaluate("localStorage.gptjax"))["settings"]["seed"] == "7"


def test_a_narrow_screen_hides_the_list_and_nothing_is_cut(tab):
    tab.set_viewport_size({"width": 360, "height": 640})
    assert not tab.is_visible("#list") and tab.is_visible("#send")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.click("#menu")
    assert tab.is_visible("#new")


def test_a_server_that_has_gone_is_said_in_plain_words(tab):
    tab.route("**/tokenize", lambda route: route.fulfill(status=429, body=json.dumps({"error": {"message": "full"}})))
    tab.fill("#text", "Hi")
    tab.press("#text", "Enter")
    tab.wait_for_selector(".error")
    assert "busy" in tab.inner_text(".error")
