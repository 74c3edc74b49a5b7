"""What feedback and report share: pages that stand alone, in which nothing that a student wrote can run."""

from __future__ import annotations

import html
import re

# Even if something slipped through the escaping, the browser would neither run nor fetch it.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --wash: #f6f8fa; --right: #2f7d4f; --partly: #c98a1b;
  --wrong: #b5483a; --none: #9aa4ae; --accent: #3b6ea5; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; font-weight: 650; }
h2 { font-size: 1.2rem; margin: 3rem 0 .3rem; font-weight: 650; }
p { margin: .4rem 0; max-width: 44rem; }
.soft { color: var(--soft); }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--wash); padding: .1em .3em; border-radius: 3px; }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.note { border-left: 3px solid var(--line); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
.text { overflow-wrap: anywhere; white-space: pre-line; }
@media print { main { padding: 0; } h2 { break-after: avoid; } }
"""


def page(title: str, style: str, body: str) -> str:
    """A whole page; title is text, style and body are CSS and HTML."""
    return PAGE.format(title=text(title), style=STYLE + style, body=body)


def text(value: object) -> str:
    """Text as HTML: escaped, without the characters that cannot be shown or that turn the reading direction around."""
    shown = "".join(each if each.isprintable() or each == "\n" else " " for each in str(value))
    return html.escape(shown)


def prose(value: object) -> str:
    """Text as HTML with `code` set as such."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text(value))


def points(value: float) -> str:
    """Points as people write them: 3, 2.5, 0.33."""
    return format(round(value, 2) + 0.0, "g")
