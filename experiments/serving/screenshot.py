"""Takes the picture of the chat page: python experiments/serving/screenshot.py --workdir=RUN --output=chat.png

It starts a server for the run, asks greedily in a headless Chromium, and writes what a person then sees.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags
from playwright.sync_api import sync_playwright

flags.DEFINE_string("workdir", None, "A run that was trained on conversations.", required=True)
flags.DEFINE_string("output", None, "The picture.", required=True)
flags.DEFINE_multi_string(
    "ask",
    [
        "What is `numpy.sum` for?",
        "What is the default of `format` in `unpack_archive(filename, extract_dir=None, format=None)`?",
        "What is the default of `copy` in `astype(dtype, copy=True)`?",
        "What is `os.path.isfile(path)` for?",
    ],
    "What is said, one message after another.",
)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    del argv
    command = [sys.executable, "-m", "gptjax.serve", f"--workdir={FLAGS.workdir}", "--port=0"]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(line.split()[1] for line in server.stderr if line.startswith("  page"))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 720}, color_scheme="dark")
            page.goto(address)
            page.click("#settings")
            page.fill("#temperature", "0")
            page.get_by_role("button", name="Done").click()
            for number, question in enumerate(FLAGS.ask, 1):
                page.fill("#text", question)
                page.press("#text", "Enter")
                page.wait_for_selector(f".turn:nth-of-type({2 * number}) .tools")
            page.screenshot(path=FLAGS.output)
            browser.close()
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    app.run(main)
