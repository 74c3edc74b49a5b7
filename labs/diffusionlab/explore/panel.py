"""What all panels share: controls beside pictures, work in the background, kind words, a still for a page without a kernel."""

from __future__ import annotations

import html
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
from IPython.display import display

from ..plots import missing_method, validating
from .paint import Picture, still
from .style import STYLE
from .work import Memory, Run, Stopped, Worker

_KIT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Stage:
    """A part of what a panel shows.

    Attributes:
        key: everything that the result depends on.
        make: makes the result, with a Run to check and to tell of progress; never None.
        show: puts the result on the page.
        name: what it is, in the status line.
    """

    key: Hashable
    make: Callable[[Run], object]
    show: Callable[[object], None]
    name: str


class View(widgets.HTML):
    """A place for one picture."""

    picture: Picture | None = None

    def __init__(self):
        super().__init__()
        self.add_class("dl-view")

    def show(self, picture: Picture) -> None:
        """Show this picture, no longer dimmed."""
        self.picture, self.value = picture, picture.to_html()
        self.remove_class("dl-old")


class Panel:
    """Controls on the left, pictures on the right, a status line below.

    A subclass calls `super().__init__` with its widgets and says in `stages` what is to be shown for the controls as they are.
    Results are kept by key. What is kept is shown at once; the rest is made by the worker, the latest wish only.
    The cell waits for the first pictures: they are the still that a page without a kernel shows, and nothing runs in the
    background, beside other cells, before somebody has touched a control.

    Args:
        title: the panel's heading.
        controls: widgets in reading order; those with a `value` redraw the panel when it changes.
        views: a list of rows, each a list of Views with a share of the row's width.
    """

    def __init__(self, title: str, controls: Sequence[widgets.Widget], views: Sequence[Sequence[tuple[View, float]]]):
        self.title, self.worker, self.memory = title, Worker(), Memory()
        self._lock = threading.RLock()
        self.views = [view for row in views for view, _ in row]
        self.numbers: dict[str, str] = {}
        self._working_on = ""
        self._table, self._message, self._status = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.stop_button = widgets.Button(description="Stop", icon="stop", tooltip="Stop the work that runs", disabled=True)
        self.stop_button.on_click(lambda _: self.stop())
        rows = [box(row, "dl-row") for row in views]
        for (view, share) in (each for row in views for each in row):
            view.layout.flex = f"{share} 1 {round(230 * share)}px"
        self._table.add_class("dl-table")
        self._message.layout.display = "none"
        self.side = box([*controls, box([self._status, self.stop_button], "dl-status"), self._table], "dl-side")
        stage = box([self._message, *rows], "dl-stage")
        self.widget = box([head(title), box([self.side, stage], "dl-body")], "dl-explorer")
        for control in controls:
            if control.has_trait("value") and not isinstance(control, widgets.HTML):
                control.observe(self.refresh, "value")

    def stages(self) -> list[Stage]:
        """What to show for the controls as they are, first things first."""
        raise NotImplementedError

    # --- what may be called from the notebook -----------------------------------------------------------------------

    def refresh(self, *_) -> None:
        """Show what the controls ask for: what was made before at once, the rest from the worker."""
        with self._lock:
            for view in self.views:
                view.add_class("dl-old")  # until it is shown again
            if missing := self._show_known():
                self._busy(True)
                self._say("at work")
                run = Run(lambda done, total: self._progress(run, done, total))
                self.worker.submit(lambda run: self._work_through(run, missing), run)
            else:
                self.worker.stop()
                self._done("shown again; made before")

    def stop(self) -> None:
        """Stop the work that runs; what was shown stays."""
        with self._lock:
            if self.worker.stop():
                self._busy(False)
                self._say("Stopped. Move a control to go on.")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the panel has nothing left to do; False after `timeout` seconds."""
        return self.worker.wait(timeout)

    def still(self) -> bytes:
        """The panel's pictures as one PNG."""
        return still([view.picture for view in self.views if view.picture], list(map(" ".join, self.numbers.items())))

    def _ipython_display_(self) -> None:
        if validating():  # nbgrader's Validate asks about the checks alone
            return
        show_live(self.widget, self.title)
        self.refresh()
        try:
            self.wait()
        except KeyboardInterrupt:  # the panel stays, and so does what is asked for in the next cells
            self.stop()
            raise
        if pictures := [view.picture for view in self.views if view.picture]:
            show_still(self.still(), f"{self.title}. " + " ".join(picture.alt for picture in pictures))

    # --- making and showing -----------------------------------------------------------------------------------------

    def _show_known(self) -> list[Stage]:
        """Show what is in memory; returns the stages that are not."""
        self.trouble("")
        stages, missing = self.stages(), []
        for stage in stages:
            result = self.memory.get(stage.key)
            if result is None:
                missing.append(stage)
            else:
                stage.show(result)
        return missing

    def _work_through(self, run: Run, stages: Sequence[Stage]) -> None:
        for stage in stages:
            self._working_on = stage.name
            trouble = None
            try:
                result = stage.make(run)
            except Stopped:
                raise
            except BaseException as error:  # whatever a student's code does, exit() too, the panel says what it was
                trouble = explain(error)
            with self._lock:
                run.check()
                if trouble:
                    self._busy(False)
                    self._say("")
                    self.trouble(trouble)
                    return
                self.memory.put(stage.key, result)
                stage.show(result)
        with self._lock:
            run.check()
            self._done("done")

    def trouble(self, sentence: str) -> None:
        """Say what is missing or what went wrong, above the pictures. The sentence is HTML."""
        self._message.value = f'<div class="dl-message" role="alert">{sentence}</div>' if sentence else ""
        self._message.layout.display = "block" if sentence else "none"

    def show_numbers(self, numbers: dict[str, str]) -> None:
        """Put these beside the controls, name by name; numbers under other names stay."""
        self.numbers |= numbers
        rows = "".join(f'<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b></div>'
                       for name, value in self.numbers.items() if value)
        self._table.value = f'<div class="dl-numbers">{rows}</div>'

    def glimpse(self, run: Run, view: View, picture: Picture) -> None:
        """Show how far long work is, unless it is out of date by now."""
        with self._lock:
            run.check()
            view.show(picture)

    def _progress(self, run: Run, done: int, total: int) -> None:
        with self._lock:
            run.check()
            self._status.value = (f'<div class="dl-progress"><progress max="{total}" value="{done}" aria-label="progress"></progress>'
                                  f"{html.escape(self._working_on)}: {done} of {total} network calls</div>")

    def _busy(self, busy: bool) -> None:
        self.stop_button.disabled = not busy

    def _done(self, words: str) -> None:
        self._busy(False)
        self._say(words)

    def _say(self, words: str) -> None:
        self._status.value = f'<div class="dl-progress"><span role="status">{html.escape(words)}</span></div>'


# --- on the page ----------------------------------------------------------------------------------------------------

def head(title: str) -> widgets.HTML:
    """A panel's heading, which brings the style sheet."""
    return widgets.HTML(f"<style>{STYLE}</style><div class='dl-title'>{html.escape(title)}</div>")


def show_live(widget: widgets.Widget, title: str) -> None:
    """Display a widget; a page without a kernel shows its title in words."""
    display({"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": widget.model_id},
             "text/plain": f"[{title}: run the cell to move its controls]"}, raw=True)


def show_still(png: bytes, alt: str) -> None:
    """Display the still that stands in for the panel displayed just before; the panel's style sheet hides it while it lives."""
    display({"image/png": b64encode(png).decode(), "text/plain": f"[picture: {alt}]"}, raw=True,
            metadata={"image/png": {"alt": alt}})


# --- words ----------------------------------------------------------------------------------------------------------

def explain(error: BaseException) -> str:
    """What an exception out of somebody's class means, in HTML: a stub is named, anything else is quoted with its place."""
    if isinstance(error, NotImplementedError) and not error.args:
        return (f"Still to be written: <code>{html.escape(missing_method(error))}</code>. "
                "Write it, run its cell and then this one; the panel moves when your code does.")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if not Path(frame.filename).is_relative_to(_KIT) and "site-packages" not in frame.filename]
    where = f" in <code>{html.escape(frames[-1].name)}</code>, line {frames[-1].lineno} of its cell" if frames else ""
    words = " ".join(str(error).split())[:300] or "without a word"
    return (f"Your code raised <code>{type(error).__name__}</code>{where}: {html.escape(words)}"
            "<br>Mend it, run its cell and then this one.")


# --- controls -------------------------------------------------------------------------------------------------------

def slider(name: str, value: float, low: float, high: float, step: float, hint: str):
    """A slider for whole numbers where `step` is one, for others where not."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return _control(kind(value=value, min=low, max=high, step=step, description=name, tooltip=hint))


def menu(name: str, options, value, hint: str) -> widgets.Dropdown:
    """A menu of (label, value) pairs or of plain values."""
    return _control(widgets.Dropdown(options=options, value=value, description=name, tooltip=hint))


def tick(name: str, hint: str) -> widgets.Checkbox:
    """A box to tick."""
    return _control(widgets.Checkbox(description=name, tooltip=hint, indent=False))


def whole(name: str, value: int, low: int, high: int, hint: str) -> widgets.BoundedIntText:
    """A whole number to type."""
    return _control(widgets.BoundedIntText(value=value, min=low, max=high, description=name, tooltip=hint))


def class_menu(model, label: int) -> widgets.Dropdown:
    """Which class to ask a model for, -1 for any; `label` at first where there is one."""
    names = getattr(model, "class_names", map(str, range(model.num_classes))) if hasattr(model, "condition") else ()
    names = tuple(names)
    options = [("any", -1), *((name, i) for i, name in enumerate(names))]
    word = "digit" if all(map(str.isdigit, names)) else "class"
    return menu(word, options, min(label, len(names) - 1), f"which {word} to ask for")


def _control(widget):
    widget.style.description_width = "6.2em"
    widget.layout.width = "auto"
    return widget


def box(children, name: str) -> widgets.Box:
    """Widgets in a box with a name for the style sheet."""
    box = widgets.Box([child[0] if isinstance(child, tuple) else child for child in children])
    box.add_class(name)
    return box
