"""The page of statistics of a corpus: what was kept and dropped and why, lengths of pages, languages."""
import html
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts"))

STYLE = """body{font:15px/1.5 system-ui,'Noto Sans','Noto Sans CJK SC',sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{text-align:right;padding:.15rem .6rem;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"""


def bars(title, rows, x):
    import altair as alt
    from charts import BLUE, data
    return alt.Chart(data(rows), title=title).mark_bar(color=BLUE).encode(
        x=alt.X("tokens:Q", title="tokens", axis=alt.Axis(format="~s")), y=alt.Y(f"{x}:N", sort="-x", title=None))


def lengths_chart(lengths, least, most):
    import altair as alt
    from charts import BLUE, data
    width = -(-(most + 1 - least) // 40)  # whole tokens
    edges = np.arange(least, most + 1 + width, width)
    counts, _ = np.histogram(lengths, edges)
    rows = [{"from": int(a), "to": int(b), "pages": int(n)} for a, b, n in zip(edges, edges[1:], counts)]
    return alt.Chart(data(rows), title="lengths of training pages").mark_bar(color=BLUE).encode(
        x=alt.X("from:Q", bin="binned", title="tokens", scale=alt.Scale(zero=False, nice=False)), x2="to:Q", y=alt.Y("pages:Q", title=None))


def row(cells, tag="td"):
    shown = (f"{cell:,}" if isinstance(cell, int) else html.escape(str(cell)) for cell in cells)
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>\n"


def write(path, manifest, lengths):
    """One self-contained HTML file."""
    import vl_convert
    from charts import CONFIG
    options = manifest["options"]
    dropped = [{"reason": reason, "tokens": counts[2]} for stage in manifest["stages"].values()
               for reason, counts in stage.items() if reason != "read" and counts[2]]
    shown = [lengths_chart(lengths["train"], options["least"], options["most"]),
             bars("languages", [{"language": c, "tokens": n} for c, n in manifest["languages"].items()], "language")]
    if dropped:
        shown.append(bars("dropped, by reason", dropped, "reason"))
    pictures = []
    for chart in shown:
        spec = chart.properties(width=640, height=180 if chart is shown[0] else {"step": 20}).to_dict()
        pictures.append(vl_convert.vegalite_to_svg(spec | {"config": CONFIG}))
    body = ["<h1>Corpus</h1><table>", row(("kept", "pages", "tokens"), "th")]
    body += [row((split, r["pages"], r["tokens"])) for split, r in manifest["kept"].items()]
    body += ["</table>", *pictures, "<h2>Read and dropped</h2><table>",
             row(("stage", "reason", "documents", "pages", "tokens"), "th")]
    body += [row((stage, reason, *counts)) for stage, tally in manifest["stages"].items() for reason, counts in tally.items()]
    body += ["</table><h2>Licences</h2><table>", row(("licence", "tokens"), "th")]
    body += [row(item) for item in manifest["licences"].items()]
    body += ["</table><h2>Sources</h2><table>", row(("file", "bytes", "SHA-256"), "th")]
    body += [row((s["name"], s["bytes"], s["sha256"][:16])) for s in manifest["sources"][:200]]
    body.append("</table>" + (f"<p>and {len(manifest['sources']) - 200:,} more, see manifest.json</p>"
                              if len(manifest["sources"]) > 200 else ""))
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(f"<!DOCTYPE html><meta charset=utf-8><title>Corpus</title><style>{STYLE}</style>\n" + "".join(body))
    os.replace(path + ".new", path)
