"""Take a screenshot of the running dashboard, for the README.

    PASSWORD=… python scripts/screenshot.py http://127.0.0.1:8000/ --username operator --password-env PASSWORD \
        --output docs/images/dashboard.png --dark

Needs Playwright (requirements-dev.txt) and Chromium: the path in CHROMIUM, or the first on the PATH.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as BrowserError

#: Without a sandbox, which containers forbid; and without requests to other hosts.
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 30_000


def find_chromium() -> str | None:
    """Path of a Chromium, or None."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    """A browser with a new, empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, url: str, username: str, password: str) -> None:
    """Log in through the form."""
    page.goto(url)
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def wait_until_live(page: Page) -> None:
    """Wait until the page shows a fresh snapshot and the chart."""
    page.wait_for_selector("html[data-live=fresh] .partitions > tbody[data-id]", timeout=TIMEOUT_MS)
    page.wait_for_selector("#minutes-chart canvas", timeout=TIMEOUT_MS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="URL of the dashboard, e.g. http://127.0.0.1:8000/")
    parser.add_argument("--username", required=True)
    parser.add_argument("--password-env", required=True, metavar="NAME", help="Environment variable with the password.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dark", action="store_true", help="Use the dark theme.")
    parser.add_argument("--size", default="1440x900", help="Width x height in CSS pixels (default: 1440x900).")
    parser.add_argument("--scale", type=float, default=2.0, help="Device pixels per CSS pixel (default: 2).")
    parser.add_argument("--full-page", action="store_true", help="Capture the whole page, not only the first screen.")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    executable, password = find_chromium(), os.environ.get(arguments.password_env)
    if executable is None or password is None:
        missing = "Chromium not found; set CHROMIUM" if executable is None else f"{arguments.password_env} is not set"
        print(f"No screenshot: {missing}.", file=sys.stderr)
        return 2
    width, _, height = arguments.size.partition("x")
    try:
        with chromium(executable) as browser:
            page = browser.new_page(
                viewport={"width": int(width), "height": int(height)},
                color_scheme="dark" if arguments.dark else "light",
                device_scale_factor=arguments.scale,
            )
            log_in(page, arguments.url, arguments.username, password)
            wait_until_live(page)
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=arguments.output, full_page=arguments.full_page)
    except (BrowserError, ValueError) as error:
        print(f"No screenshot: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
