"""The pages in a real browser: Debian's Chromium, driven by its own driver. Nothing is asked of any other host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import missing
from test_server import Running, serving

import modelhub
from modelhub_registry import Registry

selenium = pytest.importorskip("selenium", reason="the Python package selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, fixtures: Path) -> Iterator[Running]:
    """Two versions of a model, the first with its proof and in production."""
    folder = tmp_path_factory.mktemp("site")
    source = fixtures / "torch" / "dl1" / "net.pt2"
    names = fixtures / "torch" / "dl1" / "variables.json"
    report = modelhub.convert(source, folder / "net.json", interface=names)
    (folder / "report.json").write_text(report.dumps())
    with Registry(folder / "served") as registry:
        registry.push("btag", [source, folder / "net.json"], [folder / "report.json"], metadata={"epoch": 2026})
        registry.alias("btag@1", "prod", force=report.verdict == "inconclusive", reason="no torch here")
        registry.push("btag", [source], metadata={"note": "<script>document.title='hit'</script>"})
    with serving(folder / "served") as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        missing("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def asked(browser: Any) -> list[str]:
    """What the browser asked for since it was last asked about it."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def quiet(browser: Any, site: Running) -> Iterator[Any]:
    """The browser; whatever a test does with it, no other host is asked and nothing is complained about."""
    asked(browser), browser.get_log("browser")
    yield browser
    urls = asked(browser)
    assert urls
    assert [url for url in urls if not url.startswith((site.url, "data:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def text(browser: Any) -> str:
    return str(browser.find_element(By.TAG_NAME, "body").text)


def test_from_the_search_to_the_proof(quiet: Any, site: Running) -> None:
    quiet.get(site.url)
    field = quiet.find_element(By.CSS_SELECTOR, "input[type=search], input[type=text]")
    field.send_keys("epoch=2026", Keys.ENTER)
    assert "btag@1" in text(quiet)
    assert "btag@2" not in text(quiet)
    quiet.find_element(By.LINK_TEXT, "btag@1").click()
    page = text(quiet)
    for told in ("btag@1", "prod", "net.json", "ip2d_log_pb_pu", "source", "epoch"):
        assert told in page, told
    assert quiet.find_elements(By.TAG_NAME, "svg")  # the report's plots


def test_a_question_that_is_none_is_told_on_the_page(browser: Any, site: Running) -> None:
    browser.get(f"{site.url}/?where=epoch%3D%3D%3D")
    field = browser.find_element(By.CSS_SELECTOR, "input[type=search], input[type=text]")
    assert field.get_attribute("value") == "epoch==="
    assert "cannot" in text(browser) or "expected" in text(browser)
    browser.get_log("browser"), asked(browser)


def test_the_graph_is_drawn(quiet: Any, site: Running) -> None:
    quiet.get(f"{site.url}/models/btag/1/graph")
    drawn = [label.text for label in quiet.find_elements(By.CSS_SELECTOR, "svg text")]
    assert any("Gemm" in label for label in drawn)
    assert any("softmax" in label.lower() for label in drawn)


def test_two_versions_side_by_side(quiet: Any, site: Running) -> None:
    quiet.get(f"{site.url}/compare?a=btag@1&b=btag@2")
    assert "btag@1" in text(quiet)
    assert "btag@2" in text(quiet)
    assert "epoch" in text(quiet)


def test_what_a_publisher_writes_is_text(quiet: Any, site: Running) -> None:
    quiet.get(f"{site.url}/models/btag/2")
    assert quiet.title != "hit"
    assert "<script>" in text(quiet)


def test_the_keyboard_is_enough(quiet: Any, site: Running) -> None:
    """Tab goes over every link and field in order, the first leads past the menu, and where one is, is seen."""
    quiet.get(site.url)
    body = quiet.find_element(By.TAG_NAME, "body")
    seen = []
    for _ in range(12):
        body.send_keys(Keys.TAB) if not seen else quiet.switch_to.active_element.send_keys(Keys.TAB)
        now = quiet.switch_to.active_element
        seen.append((now.tag_name, now.get_attribute("href") or ""))
        assert quiet.execute_script("return getComputedStyle(arguments[0]).outlineStyle", now) != "none"
        if now.tag_name == "a" and now.text == "btag":
            break
    assert "#" in seen[0][1]
    assert {"a", "input"} <= {tag for tag, _ in seen}
    quiet.switch_to.active_element.send_keys(Keys.ENTER)
    assert quiet.current_url.endswith("/models/btag")


@pytest.mark.parametrize("path", ["", "models/btag", "models/btag/1", "models/btag/1/graph", "compare", "api"])
@pytest.mark.parametrize("width", [400, 1200])
def test_no_page_is_wider_than_the_screen(quiet: Any, site: Running, path: str, width: int) -> None:
    quiet.set_window_size(width, 900)
    quiet.get(f"{site.url}/{path}")
    assert quiet.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert quiet.find_elements(By.CSS_SELECTOR, "h1")


def test_both_sides_are_seen_on_a_phone(quiet: Any, site: Running) -> None:
    quiet.set_window_size(500, 900)  # Chromium makes no smaller window
    quiet.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    quiet.get(f"{site.url}/compare?a=btag@1&b=btag@2")
    tables = quiet.find_elements(By.CSS_SELECTOR, ".scroll")
    assert len(tables) >= 4
    for table in tables:
        beyond = "return arguments[0].scrollWidth - arguments[0].clientWidth"
        assert quiet.execute_script(beyond, table) <= 0, table.get_attribute("aria-label")
    quiet.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_proof_comes_before_the_variables(quiet: Any, site: Running) -> None:
    quiet.get(f"{site.url}/models/btag/1")
    assert [h.get_attribute("id") for h in quiet.find_elements(By.CSS_SELECTOR, "h2[id]")] == [
        "files", "reports", "interface", "lineage", "metadata",
    ]  # fmt: skip


def test_what_is_not_there_is_a_page_too(browser: Any, site: Running) -> None:
    browser.get(f"{site.url}/models/nothing")
    assert browser.find_elements(By.CSS_SELECTOR, "h1")
    assert "nothing" in text(browser)
    browser.get_log("browser"), asked(browser)
