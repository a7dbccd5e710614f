"""Frames of the live parts while they are used, in Chromium: `python tests/book/frame_rate.py`.

Prints for each part, with small networks, the frames a second and the longest frame by the page's own clock,
and the longest task of the page's main thread: in time, and in the processor's time, which other programs do
not lengthen.
"""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from nodelib.publish import live
from nodelib.publish.pdf import ARGUMENTS, find_browser

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>live</title>
<link rel="stylesheet" href="live/live.css"><div class="node-live" data-live="{part}"
data-runs="small-10-seed0,small-100-seed0"></div><script defer src="live/live.js"></script></html>"""
RECORD = """() => {
  window.frames_ = [];
  const note = now => { frames_.push(now); requestAnimationFrame(note); };
  requestAnimationFrame(note);
}"""
PARTS = {"draw and attack": ("draw", ".node-live-pad"), "its epsilon": ("draw", "Epsilon"),
         "end time": ("endtime", "Time"), "dial": ("dial", "Logits times"),
         "playground": ("playground", ".node-live-field-of-arrows")}


def use(page: Any, target: Any, seconds: int = 4) -> None:
    """Drag to and fro along a slider or across a picture, by the pace of the page's frames."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()

    def place(x: float) -> None:
        page.mouse.move(box["x"] + box["width"] * (0.5 + 0.4 * x), box["y"] + box["height"] * (0.5 + 0.1 * x))

    place(0)
    page.mouse.down()
    start = page.evaluate("performance.now()")
    while (passed := page.evaluate("performance.now()") - start) < 1000 * seconds:
        place(math.sin(passed / 300))
    page.mouse.up()
    page.wait_for_timeout(1000)  # what follows: an attack, a film


def longest_task(trace: bytes) -> tuple[float, float]:
    """Milliseconds of the longest task of the page's main thread: in time, and of the processor."""
    events = json.loads(trace)["traceEvents"]
    main = {(e["pid"], e["tid"]) for e in events
            if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"}
    tasks = [e for e in events if e["name"] == "RunTask" and (e["pid"], e["tid"]) in main]
    return tuple(max(e.get(kind, 0) for e in tasks) / 1000 for kind in ("dur", "tdur"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as engine:
        live.export(Path(folder) / "live")
        browser = engine.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        for name, (part, control) in PARTS.items():
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            path = Path(folder) / f"{part}.html"
            path.write_text(PAGE.format(part=part))
            page.goto(path.as_uri())
            page.locator("[data-done]").wait_for()
            page.wait_for_timeout(1000)
            browser.start_tracing(page=page, categories=["disabled-by-default-devtools.timeline"])
            page.evaluate(RECORD)
            slider = page.get_by_role("slider", name=control)
            use(page, page.locator(control) if control.startswith(".") else slider)
            times = page.evaluate("frames_")
            task, processor = longest_task(browser.stop_tracing())
            worst = max(b - a for a, b in zip(times, times[1:]))
            rate = 1000 * (len(times) - 1) / (times[-1] - times[0])
            print(f"{name}: {rate:.1f} frames a second, the longest {worst:.0f} ms; "
                  f"longest task {task:.0f} ms, {processor:.0f} ms of the processor", flush=True)
            page.close()


if __name__ == "__main__":
    main()
