"""Text for the screen: errors in one line, and tables."""

from collections.abc import Iterable, Sequence


def one_line(error: Exception, most: int | None = 160) -> str:
    """Return the first characters of an error's text without line breaks; its kind where it is
    empty."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def text_table(
    head: Sequence[str], rows: Iterable[Sequence], align: str, widths: Sequence[int] = ()
) -> str:
    """Return a table as text: a head, one line for each row, two spaces between columns.

    Parameters
    ----------
    head : sequence of str
        A cell with line breaks takes several lines; the head is as high as its highest cell.
    rows : iterable of sequences
        One cell for each column. What is not a string is shown as ``str`` shows it.
    align : str
        One character for each column: ``<`` to the left, ``>`` to the right.
    widths : sequence of int, optional
        The least width of each column. A column is as wide as its widest cell needs.
    """
    cells = [cell.split("\n") for cell in head]
    height = max(map(len, cells))
    lines = [[cell[k] if k < len(cell) else "" for cell in cells] for k in range(height)]
    lines += [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*lines, strict=True))
    least = [*widths, *[0] * (len(columns) - len(widths))]
    widths = [max(n, *map(len, column)) for n, column in zip(least, columns, strict=True)]
    return "\n".join(
        "  ".join(f"{x:{a}{n}}" for x, a, n in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    )
