"""Tables of the screen."""

import pytest

from dslbi_torch.text import text_table


def test_a_table_is_as_wide_as_its_cells_and_as_it_is_told():
    rows = [("conv1", 25, "1.0"), ("a long name", 3, "12.5")]
    assert text_table(("layer", "units", "held out\n%"), rows, "<>>", widths=(0, 6)) == (
        "layer         units  held out\n"
        "                            %\n"
        "conv1            25       1.0\n"
        "a long name       3      12.5"
    )
    assert text_table(("a", "b"), [("x", "")], "<<") == "a  b\nx"  # nothing hangs over


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="zip"):
        text_table(("a", "b"), [("x",)], "<<")
