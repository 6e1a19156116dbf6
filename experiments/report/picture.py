"""The report on a run as a picture: the top of its page on a light and on a dark screen.

  python experiments/report/picture.py --workdir=runs/demo --output=experiments/report/page.png [-- --price='2 USD' …]

What follows `--` is given to gptjax report. A Chromium renders the page.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT, COLORS = 820, 1920, 64
# Chromium must not ask any server for anything.
QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DARK = "--blink-settings=preferredColorScheme=0"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--output", required=True, help="the PNG file to write")
    parser.add_argument("--chromium", default="chromium", help="the browser")
    parser.add_argument("more", nargs="*", help="further flags of gptjax report")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "gptjax.report", f"--workdir={given.workdir}", f"--output={page}"]
        subprocess.run([*command, *given.more], check=True)
        shots = [screenshot(given.chromium, page, Path(folder), flags) for flags in ([], [DARK])]
    picture = Image.new("RGB", (sum(each.width for each in shots), shots[0].height))
    for number, shot in enumerate(shots):
        picture.paste(shot, (number * shots[0].width, 0))
    packed = io.BytesIO()
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    Path(given.output).write_bytes(packed.getvalue())
    print(f"{given.output}: {picture.width} x {picture.height}, {len(packed.getvalue()) / 1000:.0f} kB")


def screenshot(chromium, page, folder, flags):
    path = folder / f"shot{len(flags)}.png"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *QUIET, "--hide-scrollbars", *flags]
    command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={path}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(path) as shot:
        return shot.convert("RGB")


if __name__ == "__main__":
    main()
