"""A picture of a run: one small bar chart for each figure, as SVG."""
import html
import statistics

CHARTS = [
    ("keepalive_cpu", "CPU s per 100k keep-alive requests"),
    ("connections_cpu", "CPU s per 100k new connections"),
    ("segments", "TCP segments per connection"),
    ("bulk1_cpu", "bulk: CPU s per GiB"),
    ("bulk1_rate", "bulk: GB/s (more is better)"),
    ("memory", "KiB per idle connection"),
]
COLOURS = {"direct": "#9aa0a6", "nginx": "#6b9e78", "haproxy": "#7a8fb8",
           "haproxy splice": "#a9b7d4", "pup": "#d9822b",
           "pup zero-hop": "#efb679"}
WIDTH, CHART_HEIGHT, BAR, GAP, LABEL = 360, 190, 18, 6, 104


def chart(metric, title, per_peer, left, top):
    medians = {peer: statistics.median(per_peer[peer]) for peer in COLOURS
               if per_peer.get(peer)}
    parts = [f'<text x="{left}" y="{top}" class="title">'
             f'{html.escape(title)}</text>']
    most = max([*medians.values(), 1e-9])
    room = WIDTH - LABEL - 70
    y = top + 10
    for peer, value in medians.items():
        low, high = min(per_peer[peer]), max(per_peer[peer])
        scale = room / max(most, 1e-9)
        parts.append(
            f'<text x="{left + LABEL - 8}" y="{y + 13}" class="peer">'
            f'{html.escape(peer)}</text>'
            f'<rect x="{left + LABEL}" y="{y}" height="{BAR}" rx="2" '
            f'width="{max(value * scale, 1):.1f}" fill="{COLOURS[peer]}"/>')
        if high > low:
            middle = y + BAR / 2
            parts.append(
                f'<path class="spread" d="M{left + LABEL + low * scale:.1f} '
                f'{middle}H{left + LABEL + min(high, most) * scale:.1f}"/>')
        parts.append(
            f'<text x="{left + LABEL + value * scale + 6:.1f}" y="{y + 13}" '
            f'class="value">{value:.3g}</text>')
        y += BAR + GAP
    return "".join(parts)


def picture(figures):
    charts = [(metric, title) for metric, title in CHARTS if metric in figures]
    rows = (len(charts) + 1) // 2
    height = rows * CHART_HEIGHT + 10
    body = "\n".join(
        chart(metric, title, figures[metric], 10 + (i % 2) * WIDTH,
              24 + (i // 2) * CHART_HEIGHT)
        for i, (metric, title) in enumerate(charts))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" \
viewBox="0 0 {2 * WIDTH + 10} {height}" font-family="sans-serif" font-size="12">
<style>
.title {{ font-weight: bold }} .peer {{ text-anchor: end }}
.spread {{ stroke: #000; stroke-opacity: .45; stroke-width: 1 }}
</style>
<rect width="100%" height="100%" fill="#fff"/>
{body}
</svg>
"""
