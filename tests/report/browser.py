"""The report of two short runs on digits in headless Chromium.

    python tests/report/browser.py FOLDER

Fails unless the page opens from a file with an empty console, every figure has a size, nothing is
wider than a window of 1280 and of 400 pixels, the map answers pointer and keys, and a button hides
a run. Leaves screenshots in the folder.
"""

import html
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from jaxclr import cli

DIGITS = pathlib.Path(__file__).parents[2] / "experiments" / "digits.py"
EPOCHS = ["--epochs", "6", "--warmup-epochs", "1", "--evaluate-every", "2"]
SHORT = ("sim_affinity", "sim_trace_plain")

# Runs inside the page and tells the window around it what it saw.
CHECKS = """
addEventListener("load", () => {
  const svg = document.querySelector(".map svg"), lens = document.getElementById("lens");
  const button = document.querySelector(".legend button");
  const low = f => f.getBoundingClientRect().height < 60;
  const flat = [...document.querySelectorAll("figure")].filter(low).map(f => f.id);
  const broken = [...document.images].filter(i => !i.hidden && !i.naturalWidth).length;
  const wide = document.documentElement.scrollWidth - innerWidth;
  const high = document.documentElement.scrollHeight;
  const said = svg.parentElement.querySelector(".shown");
  svg.querySelector(".points use").dispatchEvent(new PointerEvent("pointerenter"));
  const hovered = !lens.hidden && said.textContent;
  const press = key => svg.dispatchEvent(new KeyboardEvent("keydown", {key})) && said.textContent;
  const arrows = ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"];
  const moved = arrows.some(key => press(key) !== hovered);
  press("Escape");
  const closed = lens.hidden;
  button.click();
  const gone = part => getComputedStyle(part).display === "none";
  const hidden = [...document.querySelectorAll("main .run1")].every(gone);
  button.click();
  parent.postMessage({flat, broken, wide, high, hovered, moved, closed, hidden}, "*");
});
"""

FRAME = """<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin: 0">
<iframe src="{page}" style="border: 0" width="{width}" height="{height}"></iframe>
<script>onmessage = event => document.body.dataset.found = JSON.stringify(event.data)</script>
"""


def main(out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    runs = [out / name for name in SHORT]
    for name, run in zip(SHORT, runs, strict=True):
        cli.main(
            ["train", str(DIGITS), "--method", name, *EPOCHS, "--out", str(run), "--overwrite"]
        )
    report = out / "report.html"
    cli.main(["report", *map(str, runs), "--out", str(report)])
    check(report, out)


def check(report: pathlib.Path, out: pathlib.Path) -> None:
    """Opens a report in windows of both widths, light and dark."""
    size = report.stat().st_size / 2**20
    assert size < 6, f"{report} has {size:.1f} MiB, more than 6"
    checked = out / "checked.html"
    checked.write_text(report.read_text().replace("</body>", f"<script>{CHECKS}</script></body>"))
    for width in (1280, 400):
        frame = out / f"frame-{width}.html"
        frame.write_text(FRAME.format(page="checked.html", width=width, height=900))
        dom, console = browse(frame, "--dump-dom")
        found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom).group(1)))
        assert not console, f"console at {width} pixels: {console}"
        assert not found["flat"] and not found["broken"], found
        assert found["wide"] <= 0, f"{found['wide']} pixels too wide for {width}"
        assert found["hovered"] and found["moved"] and found["closed"] and found["hidden"], found
        frame.write_text(
            FRAME.format(page=report.resolve().as_uri(), width=width, height=found["high"])
        )
        for theme, options in (
            ("light", []),
            ("dark", ["--blink-settings=preferredColorScheme=0"]),
        ):
            options += ["--hide-scrollbars", f"--window-size={max(width, 500)},{found['high']}"]
            browse(frame, f"--screenshot={out / f'{width}-{theme}.png'}", *options)
    browse(report, f"--print-to-pdf={out / 'report.pdf'}", "--no-pdf-header-footer")
    print(
        f"No error; {size:.2f} MiB. Screenshots at 1280 and 400 pixels, light and dark, and a "
        f"print are in {out}."
    )


def browse(page: pathlib.Path, *options: str) -> tuple[str, list[str]]:
    """Opens a page with an empty profile; returns its document and the lines on its console."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            os.environ["CHROMIUM"],
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
        ]
        command += [
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            *options,
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
