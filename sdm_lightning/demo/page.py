"""A web page in one file: works offline, on a phone, in light and dark."""

import base64
import html
from io import BytesIO
from pathlib import Path

from PIL import Image

STYLE = """
:root{--paper:#faf9f6;--card:#fff;--ink:#1d1d22;--soft:#63636e;--line:#e4e2dc;--accent:#3b5bdb;
--accent-soft:#dfe5fb;--before:#a9abb8;--warn:#8a5a00;--warn-paper:#fff4dc;--code:#f1efe9;
color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--paper:#15161a;--card:#1d1f25;--ink:#ececf0;--soft:#a0a2ae;
--line:#32343d;--accent:#8ea4ff;--accent-soft:#2a3054;--before:#6b6e7c;--warn:#f3c969;
--warn-paper:#33290f;--code:#24262d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:clamp(1.9rem,5vw,3rem);line-height:1.12;letter-spacing:-.02em;margin:.2rem 0 1rem;
text-wrap:balance}
h2{font-size:1.35rem;letter-spacing:-.01em;margin:3.2rem 0 .4rem}
p{max-width:44rem;margin:.4rem 0 1rem}
.over,.note,figcaption,.soft{color:var(--soft)}
.over{font-size:.85rem;letter-spacing:.02em;margin:0}
.lead{font-size:1.12rem}
.note{font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.8rem;
margin:1.6rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:.9rem 1.1rem}
.tile b{display:block;font-size:1.75rem;line-height:1.2;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tile span{font-size:.88rem;color:var(--soft)}
.warn{background:var(--warn-paper);color:var(--ink);border-left:4px solid var(--warn);
border-radius:0 10px 10px 0;padding:.8rem 1.1rem;margin:1.4rem 0;max-width:none}
.warn b{color:var(--warn)}
.warn ul{margin:.3rem 0 0;padding-left:1.2rem}
figure{margin:0}
figcaption{font-size:.78rem;line-height:1.3;margin-top:.3rem;text-align:center}
img{display:block;width:100%;height:auto;border-radius:8px;background:var(--line)}
.strip{display:grid;grid-template-columns:repeat(var(--n),1fr);gap:.5rem;margin:.9rem 0 1.3rem}
@media(max-width:40rem){.strip.wrap{grid-template-columns:repeat(4,1fr)}}
.stages{display:grid;grid-template-columns:minmax(4.2rem,auto) repeat(var(--n),1fr);gap:.55rem;
align-items:center;margin:1rem 0}
.stages .head{font-size:.85rem;color:var(--soft);text-align:center}
.stages .side{font-size:.85rem;color:var(--soft);line-height:1.25}
@media(max-width:40rem){.stages{gap:.3rem;grid-template-columns:3.6rem repeat(var(--n),1fr)}
.stages .side,.stages .head{font-size:.7rem}}
.ends{display:flex;gap:1rem;max-width:24rem;margin:1rem 0}
.ends figure{flex:1}
.cards{columns:2;column-gap:1.2rem}
.cards figure{break-inside:avoid;margin-bottom:1.2rem}
@media(max-width:40rem){.cards{columns:1}}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1rem;
align-items:start}
.charts.one{max-width:30rem}
.panel{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1rem}
.panel h3 code{display:block;font-weight:400;font-size:.82rem;color:var(--soft)}
.panel h3{font-size:.95rem;margin:0 0 .3rem;font-weight:600}
.chart{width:100%;height:auto;display:block}
.chart text{font-size:11px;fill:var(--soft)}
.chart .rule{stroke:var(--line);stroke-width:1}
.chart polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
.chart .raw{stroke-width:1;opacity:.3}
.chart .smooth{stroke-width:2.2}
.chart .now{stroke:var(--accent)}
.chart .before{stroke:var(--before)}
.chart circle.now{fill:var(--accent)}
.chart circle.before{fill:var(--before)}
.chart rect{fill:var(--accent)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:3px;vertical-align:-.05em;
background:var(--accent);margin-right:.35em}
.key.before{background:var(--before)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;margin:.8rem 0}
th,td{padding:.5rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{font-weight:600;font-size:.85rem;color:var(--soft)}
th:first-child,td:first-child{text-align:left;padding-left:.3rem}
tr.ours td{background:var(--accent-soft)}
td .bar{display:inline-block;height:.55em;border-radius:3px;background:var(--before);
margin-right:.6em;vertical-align:.05em}
tr.ours .bar{background:var(--accent)}
.best{font-weight:700}
@media(max-width:40rem){td .bar{display:none}th{white-space:normal}th,td{padding:.45rem .4rem;
font-size:.82rem}}
.wipe{position:relative;overflow:hidden;border-radius:12px;--at:50%}
.wipe img{border-radius:0}
.wipe .after{position:absolute;inset:0;clip-path:inset(0 0 0 var(--at))}
.wipe::after{content:"";position:absolute;top:0;bottom:0;left:var(--at);width:3px;margin-left:-1.5px;
background:#fff;box-shadow:0 0 6px #0008;pointer-events:none}
.wipe input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}
.wipe:focus-within{outline:3px solid var(--accent);outline-offset:2px}
.fill{position:relative;border-radius:12px;overflow:hidden}
.fill img{border-radius:0}
.fill img+img{position:absolute;inset:0;opacity:0;animation:0s infinite both}
@media(prefers-reduced-motion:reduce){.fill img+img{animation:none;opacity:1}}
pre{background:var(--code);border-radius:10px;padding:1rem;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.82rem;line-height:1.55;margin:.8rem 0}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;
font-size:.92rem;margin:.8rem 0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin-bottom:.5rem}}
details summary{cursor:pointer;color:var(--accent)}
footer{margin-top:3.5rem;border-top:1px solid var(--line);padding-top:1rem;font-size:.88rem;
color:var(--soft)}
@media print{.fill img+img{animation:none;opacity:1}}
"""

SCRIPT = """
document.querySelectorAll('.wipe input').forEach(i=>{
const set=()=>i.parentElement.style.setProperty('--at',i.value+'%');
i.addEventListener('input',set);set()})
"""


def page(title: str, body: str) -> str:
    """The whole document around a body."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def image_source(path: Path, lossy: bool = False) -> str:
    """A ``data:`` address that holds the picture; photos as JPEG, which is a tenth of the size."""
    with Image.open(path) as image:
        buffer = BytesIO()
        if lossy:
            image.convert("RGB").save(buffer, "JPEG", quality=88)
        else:
            image.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if lossy else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_tag(path: Path, text: str, lossy: bool = False) -> str:
    """An ``<img>`` that carries its picture."""
    return f'<img src="{image_source(path, lossy)}" alt="{html.escape(text)}">'


def figure(path: Path, caption: str, lossy: bool = False) -> str:
    """A picture with a line below it."""
    tag = image_tag(path, caption, lossy)
    return f"<figure>{tag}<figcaption>{html.escape(caption)}</figcaption></figure>"


def wipe(before: Path, after: Path, text: str) -> str:
    """Two pictures of one size; a line that the reader drags uncovers the second."""
    label = html.escape(f"{text}: drag to compare")
    return (
        f'<div class="wipe">{image_tag(before, text + ", with its holes", True)}'
        f'<div class="after">{image_tag(after, text + ", filled", True)}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
    )


def filling(frames: list[Path], text: str, seconds: float = 1.1) -> str:
    """Pictures of one size that appear one over the other, again and again."""
    count = len(frames)
    whole = seconds * (count + 1.5)  # the last one stays longer
    rules, tags = [], []
    for number, path in enumerate(frames):
        start = 100 * number * seconds / whole
        name = f"fill{number}of{count}"
        rules.append(
            f"@keyframes {name}{{0%,{start:.1f}%{{opacity:0}}{start + 4:.1f}%,97%{{opacity:1}}"
            "100%{opacity:0}}"
        )
        style = f' style="animation-name:{name};animation-duration:{whole:.1f}s"' if number else ""
        alt = html.escape(text) if number == 0 else ""
        tags.append(f'<img src="{image_source(path)}" alt="{alt}"{style}>')
    return f'<style>{"".join(rules[1:])}</style><div class="fill">{"".join(tags)}</div>'
