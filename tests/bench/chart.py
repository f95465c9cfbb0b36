"""A chart as SVG: horizontal bars, each stacked of parts."""

from html import escape

COLOURS = (
    *("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677"),
    *("#aa3377", "#bbbbbb", "#332288", "#999933", "#882255"),
)
WIDTH, LABELS, BAR, GAP = 760, 260, 22, 12
FONT = 'font-family="sans-serif" font-size="13"'


def stacked(rows: dict[str, dict[str, float]], parts: list[str], title: str) -> str:
    """rows: the parts' values by the name of each row."""
    sums = {name: sum(values.get(part, 0) for part in parts) for name, values in rows.items()}
    scale = (WIDTH - LABELS - 60) / max(sums.values())
    height = 60 + len(rows) * (BAR + GAP) + 20 * ((len(parts) + 3) // 4)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="24" font-weight="bold">{escape(title)}</text>',
    ]
    y = 40
    for name, values in rows.items():
        lines.append(f'<text x="10" y="{y + 16}">{escape(name)}</text>')
        x = LABELS
        for part, colour in zip(parts, COLOURS, strict=False):
            width = values.get(part, 0) * scale
            box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"'
            lines.append(f'<rect {box} fill="{colour}"/>')
            x += width
        lines.append(f'<text x="{x + 6:.1f}" y="{y + 16}">{sums[name]:,.0f}</text>')
        y += BAR + GAP
    for number, (part, colour) in enumerate(zip(parts, COLOURS, strict=False)):
        x, line = 10 + 185 * (number % 4), y + 8 + 20 * (number // 4)
        lines.append(f'<rect x="{x}" y="{line}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{x + 18}" y="{line + 11}">{escape(part)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
