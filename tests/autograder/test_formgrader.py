"""Formgrader, in a real browser, on a graded class."""

from __future__ import annotations

import csv
import socket
import subprocess
import sys
import time
from contextlib import closing
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def server(fake_class):
    """JupyterLab as the manual says to start it, in the folder of a graded class; yields (address, class)."""
    for name in ("ada", "ben"):
        fake_class.hand_in(name, raw=fake_class.lab.lesson.with_name("tinylab.ipynb").read_bytes())
    fake_class.grade(grade_one="autograder.pipeline:grade_one", seed=11)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
                                "--ServerApp.port_retries=0", "--IdentityProvider.token=test"],
                               cwd=fake_class.out, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, "JupyterLab ended by itself"
            try:
                urlopen(f"http://127.0.0.1:{port}/api/status?token=test", timeout=60).read()
                break
            except (URLError, ConnectionError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", fake_class
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def browser(needs_tool):
    options = webdriver.ChromeOptions()
    options.binary_location = needs_tool("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1600"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(needs_tool("chromedriver")))
    yield driver
    driver.quit()


def test_formgrader_shows_the_hand_ins_and_takes_points(server, browser):
    address, made = server
    wait = WebDriverWait(browser, 60)

    def link(text: str):
        return wait.until(lambda page: next((each for each in page.find_elements(By.TAG_NAME, "a") if text in each.text), None))

    browser.get(f"{address}/formgrader?token=test")
    browser.get(f"{address}/formgrader/gradebook/tinylab/tinylab")
    hand_in = link("Submission #1")
    assert browser.find_element(By.TAG_NAME, "body").text.count("9 / 10") == 2
    hand_in.click()
    # The page is there before its points are.
    wait.until(lambda page: {each.get_attribute("id"): each.get_attribute("placeholder")
                             for each in page.find_elements(By.CSS_SELECTOR, "input.score:not([disabled])")} == {
        "mean": "3", "variance": "4", "largest": "2", "essay": ""})
    browser.find_element(By.ID, "essay").send_keys("1", Keys.TAB)
    student = wait.until(lambda page: next((row["student_id"] for row in rows_now(made) if row["essay"] == "1"), None))
    assert {row["student_id"]: row["score"] for row in rows_now(made)} == {student: "10", **{
        name: "9" for name in ("ada", "ben") if name != student}}


def rows_now(made) -> list[dict[str, str]]:
    """What `autograder export` writes at this moment."""
    done = subprocess.run([sys.executable, "-m", "autograder", "export", "tinylab", "--out", made.out, "--to", made.folder / "now.csv"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader((made.out / "grades.csv").open(newline="")))
