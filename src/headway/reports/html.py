"""Self-contained HTML pages: a file a page, no external resources."""

import html
from collections.abc import Sequence
from pathlib import Path

from headway.files import write_text

STYLE = """
:root { color-scheme: light; } body { font: 16px/1.55 system-ui, sans-serif; color: #1c2430;
background: #f6f7f9; margin: 0; } main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; } p.lead { color: #4d5866; margin: 0 0 1.5rem; }
section.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { background: #fff; border: 1px solid #dde2e8; border-radius: 10px; margin: 0; padding: .8rem; }
figure svg { width: 100%; height: auto; } figcaption { color: #4d5866; font-size: .86rem; }
table { border-collapse: collapse; width: 100%; background: #fff;
  border: 1px solid #dde2e8; border-radius: 10px; overflow: hidden; }
th, td { padding: .5rem .7rem; text-align: right; border-bottom: 1px solid #eceff3; }
th:first-child, td:first-child { text-align: left; }
th { background: #eef1f5; font-weight: 600; font-size: .88rem; } tr:last-child td { border-bottom: 0; }
td { font-size: .9rem; } table + section.plots { margin-top: 1rem; }
pre { background: #fff; border: 1px solid #dde2e8; border-radius: 10px; padding: .8rem; white-space: pre-wrap; }
"""


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page.

    Args:
        path: the file.
        title: text, escaped here.
        body: HTML, written unchanged.
    Raises:
        HeadwayError: the file cannot be written.
    """
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>
<h1>{html.escape(title)}</h1>
{body}
</main></body></html>"""
    write_text(path, page)


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table. Headings and cells are text, escaped here."""
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in headings)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
