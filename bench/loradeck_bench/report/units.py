"""Numbers as people read them."""


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def size(count: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float | None) -> str:
    """Seconds for people: `240 ms`, `7.3 s`, `4 min 10 s`, `3 h 5 min`, `12 days`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes} min {int(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 72 * 60 else f"{minutes / 1440:.0f} days"
