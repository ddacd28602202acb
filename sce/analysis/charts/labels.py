"""Names beside points, where there is room for them."""

from collections.abc import Sequence
from typing import Any

FONT = 8
"""Size of the labels, in pixels."""
_WIDTH = 0.56 * FONT
"""Of a letter, about."""
_GAP = 7
_POINT = 5
Ends = tuple[float, float]


def placed(
    rows: Sequence[dict[str, Any]],
    size: tuple[int, int],
    ends: tuple[Ends, Ends],
    power: float = 1.0,
) -> list[dict[str, Any]]:
    """Rows of `name`, `text_x` and `text_y` for the labels that cover neither point nor label.

    Every label is tried right, left, above and below its point, in turn; one that fits nowhere is
    left out (the tables name every point). What the legend names, real and untuned, has none.

    Args:
        rows: `name`, `kind`, `x` and `y` of each point.
        size: width and height of the plot, in pixels.
        ends: of the two scales; of x above 0 where it is stretched.
        power: that x is stretched by.
    """
    (width, height), (across, (low, high)) = size, ends
    left, right = (end**power if power != 1 else end for end in across)
    scale_x, scale_y = width / (right - left or 1.0), height / (high - low or 1.0)
    xs = [row["x"] ** power if power != 1 else row["x"] for row in rows]
    spots = [
        ((x - left) * scale_x, (high - row["y"]) * scale_y) for x, row in zip(xs, rows, strict=True)
    ]
    taken = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in spots]
    found = []
    for index, (x, y) in enumerate(spots):
        if rows[index]["kind"] in ("real", "untuned"):
            continue
        long = _WIDTH * len(rows[index]["name"])
        tries = (
            (x + _GAP, y),
            (x - _GAP - long, y),
            (x - long / 2, y - 11),
            (x - long / 2, y + 11),
        )
        for at, middle in tries:
            box = (at, middle - FONT / 2 - 1, at + long, middle + FONT / 2 + 1)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                text_x, text_y = left + at / scale_x, high - middle / scale_y
                text_x = text_x ** (1 / power) if power != 1 else text_x
                found.append({"name": rows[index]["name"], "text_x": text_x, "text_y": text_y})
                break
    return found


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
