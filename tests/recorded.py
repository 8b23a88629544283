"""A recorded path as one dict of arrays, so that two can be compared."""


def flat(record):
    """``{"steps": ..., "entry/NAME": ...}`` of a RecordedPath."""
    found = {"steps": record.steps, "times": record.times}
    for field in record._fields[2:]:
        found |= {f"{field}/{name}": x for name, x in getattr(record, field).items()}
    return found
