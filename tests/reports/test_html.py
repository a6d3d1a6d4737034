"""Pages escape text and stand alone."""

from pathlib import Path

from headway.reports.html import html_table, write_page


def test_a_page_escapes_its_title_and_cells_and_loads_nothing(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "a < b & c", html_table(["<b>"], [["1 < 2"]]))
    page = (tmp_path / "page.html").read_text()
    assert "<title>a &lt; b &amp; c</title>" in page
    assert "<th>&lt;b&gt;</th>" in page and "<td>1 &lt; 2</td>" in page
    assert "http" not in page and "<script" not in page
