"""The page in headless Chromium: real and simulated files, odd ones, the keyboard, a narrow window, no other
server."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from native_files import write_desi, write_sdss
from odd_files import MARKUP


pytest.importorskip("gradio", reason="the page needs gradio: pip install -c constraints.txt -e .[space]")
pytest.importorskip("selenium", reason="the browser's test needs selenium: pip install selenium")
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
if not (os.access(CHROMIUM, os.X_OK) and os.access(DRIVER, os.X_OK)):
    pytest.skip(
        f"no {CHROMIUM} and {DRIVER}: apt-get install chromium chromium-driver (.ci/run does)", allow_module_level=True
    )

from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


APP = Path(__file__).parents[2] / "hub_configs" / "space" / "app.py"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1000",
)  # fmt: skip
START, PATIENCE = 300, 60  # seconds, on a machine that may have other work to do
SPEC = "spec-0001-55555-0007.fits"


@pytest.fixture(scope="module")
def address(saved_models, reference, tmp_path_factory):
    """The page as users start it, with a tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    heads = ",".join(str(saved_models[name]) for name in ("classes", "redshift"))
    settings = {"MODEL": saved_models["model"], "HEADS": heads, "REFERENCE": reference, "MAX_MEGABYTES": 20}
    settings |= {"GRADIO_SERVER_PORT": port, "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1}
    log = tmp_path_factory.mktemp("page") / "log"
    with open(log, "w") as output:
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        process = subprocess.Popen([sys.executable, str(APP)], env=environment, stdout=output, stderr=output)
    url, end = f"http://127.0.0.1:{port}/", time.monotonic() + START
    try:
        while not answers(url):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, browser, address: str):
        self.browser, self.address = browser, address

    def come(self) -> "Visitor":
        self.browser.get(self.address)
        self.until(lambda: self.find("#upload input[type=file]"))
        return self

    def until(self, condition):
        return WebDriverWait(self.browser, PATIENCE, ignored_exceptions=()).until(lambda _: self.attempt(condition))

    def attempt(self, condition):
        try:
            return condition()
        except Exception:  # the page redraws while it is looked at
            return False

    def find(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def drop(self, *files: Path, says: str) -> None:
        """Drop files, and wait until the page says something of them."""
        self.find("#upload input[type=file]").send_keys("\n".join(map(str, files)))
        self.until(lambda: says in self.text("#recognised"))

    def sees_plot(self) -> str:
        return self.until(lambda: self.find("#plot .js-plotly-plot .scatterlayer path.js-line").get_attribute("d"))

    def press(self, *keys) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def chord(self, modifier: str, key: str) -> None:
        ActionChains(self.browser).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def place(self) -> str:
        """The focused control: its own id, or that of the part that it stands in."""
        script = "let e = document.activeElement; while (e && !e.id) e = e.parentElement; return e ? e.id : ''"
        return self.browser.execute_script(script)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        script = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
        return self.browser.execute_script(script)


@pytest.fixture
def visitor(browser, address):
    browser.set_window_size(1200, 1000)
    return Visitor(browser, address).come()


def test_a_file_is_recognised_drawn_and_measured(visitor, simulated_surveys):
    visitor.drop(next(simulated_surveys["sdss"].glob("spec-*.fits")), says="SDSS")
    assert "simulated" in visitor.text("#recognised")
    assert visitor.sees_plot()
    visitor.until(lambda: "visible pixels, model" in visitor.text("#numbers"))
    visitor.until(lambda: "GALAXY" in visitor.text("#labels") and "redshift" in visitor.text("#labels"))
    visitor.until(lambda: visitor.find("#bins .js-plotly-plot"))
    visitor.find("#hide-random").click()
    visitor.until(lambda: "hidden pixels, straight lines" in visitor.text("#numbers"))
    visitor.find("button[role=tab]:nth-of-type(2)").click()
    visitor.until(lambda: "APOGEE" in visitor.text("#neighbours"))


REAL = {
    "sdss": "sdss/spec-0266-51602-0013.fits",
    "desi": "desi/specutils/coadd-5-169-thru20210419.fits",
    "galah": "galah/dr3/131123003001096?.fits.gz",
    "apogee": "apogee/apstar_data/apStar-r6-2M00005143+5615568.fits.gz",
}


@pytest.mark.parametrize("survey", list(REAL))
def test_real_files_of_every_survey(visitor, spectra_dir, survey):
    files = sorted(spectra_dir.glob(REAL[survey]))
    visitor.drop(*files, says=survey.upper())
    assert "simulated" not in visitor.text("#recognised")
    assert visitor.sees_plot()
    visitor.until(lambda: "visible pixels, model" in visitor.text("#numbers"))


def test_the_keyboard_alone_hides_a_region(visitor, tmp_path):
    visitor.drop(write_sdss(tmp_path / SPEC, flux=range(1, 401)), says="SDSS")
    visitor.sees_plot()
    seen = []
    while "low" not in seen[-1:] and len(seen) < 60:
        visitor.press(Keys.TAB)
        seen.append(visitor.place())
    assert "example" in " ".join(seen) and seen[-1] == "low", seen
    visitor.chord(Keys.CONTROL, "a")
    visitor.press("3900", Keys.TAB)
    visitor.chord(Keys.CONTROL, "a")
    visitor.press("4000", Keys.TAB)
    assert visitor.place() == "hide-range"
    visitor.press(Keys.ENTER)
    visitor.until(lambda: "3900 to 4000" in visitor.text("#numbers"))
    assert "hidden pixels, model" in visitor.text("#numbers")
    visitor.chord(Keys.SHIFT, Keys.TAB)
    visitor.chord(Keys.CONTROL, "a")
    visitor.press("100", Keys.ENTER)
    visitor.until(lambda: "the smaller one first" in visitor.text("#notice"))


def test_an_example_by_keyboard(visitor):
    visitor.find("#example input").send_keys(Keys.SPACE)
    visitor.until(lambda: "simulated" in visitor.text("#recognised"))
    assert visitor.sees_plot()


def test_several_spectra_are_offered(visitor, tmp_path):
    visitor.drop(write_desi(tmp_path / "coadd-1.fits", [1 << 60, 2 << 60, -1]), says="DESI")
    visitor.until(lambda: visitor.find("#spectrum input").is_displayed())
    assert "negative TARGETID 1" in visitor.text("#recognised")


def test_odd_files_say_what_was_found(visitor, tmp_path):
    picture = tmp_path / f"{MARKUP.replace('/', '')}{{{{1+1}}}}.fits"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    visitor.drop(picture, says="Not recognised")
    assert "expected a FITS file" in visitor.text("#recognised") and MARKUP in visitor.text("#recognised")
    assert not visitor.browser.find_elements(By.CSS_SELECTOR, "#recognised img")
    assert not any(part.is_displayed() for part in visitor.browser.find_elements(By.ID, "results"))
    visitor.drop(write_sdss(tmp_path / SPEC), says="SDSS")  # and it is still up
    assert visitor.sees_plot()


def test_a_file_that_is_too_large_is_told(visitor, tmp_path):
    with open(tmp_path / "large.fits", "wb") as file:
        file.truncate(21 * 2**20)
    visitor.find("#upload input[type=file]").send_keys(str(tmp_path / "large.fits"))
    visitor.until(lambda: "size" in visitor.text("body").lower() and "20" in visitor.text("body"))


def test_a_narrow_window_needs_no_sideways_scrolling(visitor, simulated_surveys):
    visitor.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        visitor.come()
        assert visitor.overflow() <= 0
        visitor.drop(next(simulated_surveys["apogee"].glob("aspcapStar-*")), says="APOGEE")
        visitor.sees_plot()
        visitor.find("#hide-random").click()
        visitor.until(lambda: "straight lines" in visitor.text("#numbers"))
        assert visitor.browser.execute_script("return window.innerWidth") == 360
        assert visitor.overflow() <= 0
        for tab in visitor.browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"):
            if tab.is_displayed():
                tab.click()
                assert visitor.overflow() <= 0
    finally:
        visitor.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


NAMELESS = """
return [...document.querySelectorAll('input, select, textarea, button, [role=listbox], [role=tab]')].filter(e => {
    if (!e.checkVisibility || !e.checkVisibility()) return false;
    const label = e.labels && [...e.labels].map(l => l.innerText).join('');
    const by = e.getAttribute('aria-labelledby');
    return !(label || e.getAttribute('aria-label') || (by && document.getElementById(by)) || e.innerText.trim() || e.title);
}).map(e => e.outerHTML.slice(0, 200));
"""


def test_every_control_has_a_name(visitor, tmp_path):
    visitor.drop(write_desi(tmp_path / "coadd-1.fits", [1 << 60, 2 << 60]), says="DESI")
    visitor.sees_plot()
    assert visitor.browser.execute_script(NAMELESS) == []


def test_no_other_server_is_asked(visitor, address, simulated_surveys):
    for kind in ("performance", "browser"):
        visitor.browser.get_log(kind)  # what was before
    visitor.come()
    visitor.drop(next(simulated_surveys["sdss"].glob("spec-*.fits")), says="SDSS")
    visitor.sees_plot()
    asked = set()
    for entry in visitor.browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    others = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    assert len(asked) > 5 and not others
    refused = [
        entry["message"] for entry in visitor.browser.get_log("browser") if "Security Policy" in entry["message"]
    ]
    assert not refused  # nothing needed to be kept from it


def test_nothing_of_an_upload_is_left(visitor, tmp_path):
    visitor.drop(write_sdss(tmp_path / "spec-9999-55555-0007.fits", plate=9999), says="SDSS")
    left = [
        path for path in Path(tempfile.gettempdir()).glob("page-*/uploads/**/*") if path.name.startswith("spec-9999")
    ]
    assert left == []
