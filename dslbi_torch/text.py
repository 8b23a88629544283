"""What an error says, in one line."""


def one_line(error: Exception, most: int | None = 160) -> str:
    """The first characters of an error's text, without its line breaks; its kind where it says
    nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__
