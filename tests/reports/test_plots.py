"""Plots become inline SVG, and no figure stays open."""

from matplotlib import pyplot

from headway.reports.plots import figure_to_svg, labelled_axes


def test_a_figure_becomes_one_svg_element_with_its_labels_and_is_closed() -> None:
    before = pyplot.get_fignums()
    figure, axes = labelled_axes("steps", "loss (nats)", (3, 2))
    axes.plot([1, 2], [2.0, 1.0])
    text = figure_to_svg(figure)
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>")
    assert pyplot.get_fignums() == before
    assert "steps" in text and "loss (nats)" in text
