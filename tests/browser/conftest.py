"""A real JupyterLab in a folder of its own, driven in a real browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"},
            "docmanager-extension/plugin": {"autosave": False}}


class Lab:
    """JupyterLab and a browser: open notebooks, run them, look at panels.

    Args:
        folder: where the server keeps its notebooks and settings.
        chromium, chromedriver: the programs.
    """

    def __init__(self, folder: Path, chromium: str, chromedriver: str):
        self.folder, self.notebooks = folder, folder / "notebooks"
        self.notebooks.mkdir()
        for name, content in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'labs'}", "JUPYTERLAB_SETTINGS_DIR": f"{folder / 'settings'}",
                            "JUPYTERLAB_WORKSPACES_DIR": f"{folder / 'workspaces'}", "JUPYTER_RUNTIME_DIR": f"{folder / 'runtime'}",
                            "JUPYTER_CONFIG_DIR": f"{folder / 'config'}", "IPYTHONDIR": f"{folder / 'ipython'}"}
        self.log = open(folder / "server.log", "w")
        self.server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={self.port}", "--ServerApp.port_retries=0",
             "--IdentityProvider.token=test", "--LabApp.expose_app_in_browser=True"],
            cwd=self.notebooks, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        while True:
            assert self.server.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                urlopen(f"http://127.0.0.1:{self.port}/api/status?token=test", timeout=60).close()
                break
            except (URLError, ConnectionError):
                time.sleep(0.2)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,1400",
                         "--force-device-scale-factor=1", f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(argument)
        self.browser = webdriver.Chrome(options, Service(chromedriver))
        self.browser.set_script_timeout(300)

    def close(self) -> None:
        """End the browser and the server."""
        try:
            self.browser.quit()
        finally:
            self.server.terminate()
            self.server.wait()
            self.log.close()

    def until(self, condition, timeout: float = 120):
        """Wait until `condition()` is truthy; returns it."""
        return WebDriverWait(self.browser, timeout, 0.05).until(lambda _: condition())

    def js(self, script: str, *arguments):
        """Run JavaScript in the page; a promise is waited for."""
        return self.browser.execute_script(script, *arguments)

    def command(self, name: str, **arguments):
        """Execute a command of JupyterLab and wait for it."""
        return self.js("return window.jupyterapp.commands.execute(arguments[0], arguments[1])", name, arguments)

    def open(self, notebook, name: str) -> None:
        """Open a notebook, given as such or as a list of sources, in a page of its own, and wait for its kernel."""
        if isinstance(notebook, list):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in notebook], metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
        nbformat.write(notebook, self.notebooks / f"{name}.ipynb")
        self.browser.get(f"http://127.0.0.1:{self.port}/doc/tree/{name}.ipynb?token=test&reset")
        self.until(lambda: self.js("return window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status") == "idle")

    def run_all(self, timeout: float = 600) -> None:
        """Run all cells, and wait until the last has ended."""
        # Not by one long request: the driver's own patience ends after two minutes.
        self.js("window.ranAll = false; void window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ranAll = true)")
        self.until(lambda: self.js("return window.ranAll"), timeout)

    def outputs(self) -> list[str]:
        """The text of each code cell's outputs."""
        return [cell.text for cell in self.browser.find_elements(By.CSS_SELECTOR, ".jp-CodeCell .jp-Cell-outputWrapper")]

    def ask(self, expression: str) -> str:
        """Evaluate an expression in the notebook's kernel; returns its repr."""
        return self.js("""
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const future = kernel.requestExecute({code: "", user_expressions: {answer: arguments[0]}, silent: true});
            return future.done.then(reply => {
                const answer = reply.content.user_expressions.answer;
                return answer.data ? answer.data["text/plain"] : "raised " + answer.ename + ": " + answer.evalue;
            });""", expression)

    def panels(self) -> list:
        """The panels on the page."""
        return self.browser.find_elements(By.CSS_SELECTOR, ".dl-explorer")

    def screenshot(self, path: Path, element=None, width: int = 1280, theme: str = "JupyterLab Light") -> None:
        """A picture of an element, or of the page, at a window's width and in a theme."""
        self.browser.set_window_size(width, 1400)
        self.command("apputils:change-theme", theme=theme)
        time.sleep(1)
        element.screenshot(str(path)) if element else self.browser.save_screenshot(str(path))


@pytest.fixture(scope="module")
def lab(tmp_path_factory, needs_tool):
    """JupyterLab in a browser, both ended after the module's tests."""
    lab = Lab(tmp_path_factory.mktemp("lab"), needs_tool("chromium"), needs_tool("chromedriver"))
    try:
        yield lab
    finally:
        lab.close()
