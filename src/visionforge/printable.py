"""Text from outside, made fit for a terminal, a log line or a table cell."""

LONGEST = 2_000  # characters of one name or message; more is no name


def printable(text: object) -> str:
    r"""Return a text in which nothing can steer a terminal or break a line.

    Control characters, line breaks, marks that reorder text, and halves of surrogate pairs (bytes of a file name that
    are no UTF-8) are written as escapes, such as ``\x1b``; everything else stays, also where it is not ASCII.

    Args:
        text: Anything; what is no text is formatted first.

    >>> printable("cat\x1b[31m\n")
    'cat\\x1b[31m\\n'
    """
    line = str(text)
    if line.isprintable() and len(line) <= LONGEST:
        return line
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
