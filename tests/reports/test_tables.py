"""Tables show cells as text, as wide as needed."""

import pytest

from headway.reports.tables import framed_table, print_table

LONG = "x" * 300


def test_a_printed_table_is_never_cut_and_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("A [title]", ["name", "value"], [["[red]a", LONG], ["b", "1"]], ["remark [bold]"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "A [title]" and lines[-1] == "remark [bold]"
    assert any("[red]a" in line and line.endswith(f" {LONG}") for line in lines)
    assert any(line.startswith("b ") and line.endswith(" 1") for line in lines)


def test_a_framed_table_holds_each_row_on_one_line() -> None:
    lines = framed_table(["name", "value"], [["[a]", LONG], ["b", "1"]]).splitlines()
    assert len(lines) == 6 and LONG in lines[3] and "[a]" in lines[3]
    assert len({len(line) for line in lines}) == 1
