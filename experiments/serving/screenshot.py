"""Takes the picture of the chat page: python experiments/serving/screenshot.py --workdir=RUN --output=chat.png

It starts a server for the run, asks greedily in a headless Chromium, and writes what a person then sees, in light and
dark colours: chat.png and chat_dark.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags
from playwright.sync_api import Page, sync_playwright

flags.DEFINE_string("workdir", None, "A run that was trained on conversations.", required=True)
flags.DEFINE_string("output", None, "The picture in light colours.", required=True)
flags.DEFINE_multi_string(
    "ask",
    [
        "Write a one-line docstring for `def is_empty()`.",
        "What is the default of `copy` in `astype(dtype, copy=True)`?",
        "Which parameters does `resize(image, width, height=None)` take?",
        "What is the default of `height` in `resize(image, width, height=None)`?",
    ],
    "What is said: each in a conversation of its own, and the last two in one.",
)
FLAGS = flags.FLAGS


def say(page: Page, text: str, answer: int) -> None:
    """Sends a message, and waits until the turn of this number is complete."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_selector(f".turn:nth-of-type({answer}) .tools")


def main(argv: list[str]) -> None:
    del argv
    command = [sys.executable, "-m", "gptjax.serve", f"--workdir={FLAGS.workdir}", "--port=0"]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(line.split()[1] for line in server.stderr if line.startswith("  page"))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1000, "height": 560}, device_scale_factor=1.5)
            page.goto(address)
            page.click("#settings")
            page.fill("#temperature", "0")
            page.get_by_role("button", name="Done").click()
            *apart, last = FLAGS.ask
            for question in apart:
                page.get_by_role("button", name="New conversation").click()
                say(page, question, answer=2)
            say(page, last, answer=4)
            output = Path(FLAGS.output)
            for scheme, path in (("light", output), ("dark", output.with_stem(f"{output.stem}_dark"))):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=path)
            browser.close()
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    app.run(main)
