"""Tables of what a record holds, whatever its form: rows that are alike become one table.

A record is JSON as the benchmarks write it. A dict with numbers or words in it is a row, a list of
dicts is many rows, and a dict of nothing but dicts names its rows by its keys. Rows below a row, as
the epochs of a run, make a table of their own, and carry the name of what they belong to.
"""

from math import isfinite

# How a record was made is said beside its tables, not in them.
HOW = ("command", "date", "started", "revision", "device", "machine")
SYSTEM = ("python", "packages", "versions", "platform", "torch", "peers", "threads", "processes")
NAMES = ("name", "net", "method", "loss", "kind", "seed", "at", "n", "p", "epoch")
PART = ("part", "of it", "of that")  # headings of keys that name rows, by depth
FEW = 12  # a list of more numbers is no entry of a cell


def is_plain(value):
    return value is None or isinstance(value, bool | int | float | str)


def is_rows(value):
    return isinstance(value, list) and value and all(isinstance(v, dict) for v in value)


def is_grid(value):
    """Whether the value is a list of equally long lists of plain values."""
    if not (isinstance(value, list) and value and all(isinstance(v, list) for v in value)):
        return False
    return len({len(v) for v in value}) == 1 and all(is_plain(x) for v in value for x in v)


def is_column(value):
    return isinstance(value, list) and len(value) > 2 and all(is_plain(v) for v in value)


def is_small(node):
    """Whether a dict of plain values is a part of the row that it stands in."""
    return all(map(is_plain, node.values()))


def short(value):
    """A value as it stands in a cell: six digits of a number, a list as its entries."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else str(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def flat(node):
    """The plain entries of a row, those of small dicts among them."""
    row = {}
    for key, value in node.items():
        if is_plain(value) or (
            isinstance(value, list) and len(value) <= FEW and all(map(is_plain, value))
        ):
            row[key] = short(value)
        elif isinstance(value, dict) and is_small(value):
            row |= {f"{key}: {name}": short(entry) for name, entry in value.items()}
    return row


def rows(node, path=(), names=None, depth=0):
    """Yield (path, row) of every row that a record holds, itself or below another."""
    names = names or {}
    if isinstance(node, list):
        for item in node:
            yield from rows(item, path, names, depth)
        return
    node = {key: value for key, value in node.items() if key not in (*HOW, *SYSTEM, "about")}
    if node and all(isinstance(value, dict) for value in node.values()):
        if len(node) == 1 and not names:
            ((key, value),) = node.items()
            yield from rows(value, (*path, key), names, depth)
            return
        for key, value in node.items():
            yield from rows(value, path, names | {PART[min(depth, 2)]: key}, depth + 1)
        return
    columns = [key for key, value in node.items() if is_column(value)]
    alike = len(columns) > 1 and len({len(node[key]) for key in columns}) == 1
    if alike:
        for entries in zip(*(node.pop(key) for key in columns), strict=True):
            yield path, names | dict(zip(columns, map(short, entries), strict=True))
    own = flat(node)
    called = {key: own[key] for key in NAMES if isinstance(own.get(key), int | str)}
    if set(own) - set(called):
        yield path, names | own
    below = names | called
    for key, value in node.items():
        if is_rows(value) or (isinstance(value, dict) and value and not is_small(value)):
            yield from rows(value, (*path, key), below, depth)
        elif is_grid(value):
            heads = key.split(", ")
            if len(heads) != len(value[0]):
                heads = [f"{key} {k + 1}" for k in range(len(value[0]))]
            for line in value:
                yield (*path, key), below | dict(zip(heads, map(short, line), strict=True))


def tables(record):
    """The tables of a record: (title, columns, rows, what is the same in all rows)."""
    found = {}
    for path, row in rows(record):
        found.setdefault(" / ".join(path), []).append(row)
    return [(title, *table(many)) for title, many in found.items()]


def table(many):
    """Columns, rows and what is the same in all of them; a single row lies on its side."""
    columns = list(dict.fromkeys(key for row in many for key in row))
    if len(many) == 1:
        return ["what", "value"], [[key, many[0][key]] for key in columns], {}
    same = {
        key: many[0][key]
        for key in columns
        if len(many) > 2 and all(key in row and row[key] == many[0][key] for row in many)
    }
    kept = [key for key in columns if key not in same]
    if not kept:
        kept, same = columns, {}
    return kept, [[row.get(key) for key in kept] for row in many], same


def how(record):
    """Each way in which a part of the record was made: date, revision, machine, command."""
    found = []

    def look(node):
        if isinstance(node, list):
            for item in node:
                look(item)
        elif isinstance(node, dict):
            if "command" in node:
                date = str(node.get("date") or node.get("started") or "")[:10]
                machine = node.get("device") or node.get("machine") or ""
                found.append((date, str(node.get("revision") or "")[:10], machine, node["command"]))
            for value in node.values():
                look(value)

    look(record)
    return list(dict.fromkeys(found))
