"""The looks of report.html: one style sheet, in the colours of the reader's system, and for paper."""

# name: (light, dark). Text on either ground has a contrast of 4.5 at least, a line of a plot 3.
COLOURS = {
    "back": ("#ffffff", "#15181c"),
    "soft": ("#f4f6f8", "#1d2127"),
    "text": ("#1b2127", "#dfe3e8"),
    "quiet": ("#56606b", "#9ba6b2"),
    "line": ("#d5dae0", "#363d46"),
    "link": ("#1f5a9c", "#83b4ea"),
    "good": ("#1c6b3c", "#71c893"),
    "bad": ("#a8261b", "#f08d80"),
    "mark": ("#eaf3ec", "#1b2b22"),
    "warn": ("#faeeec", "#33201e"),
    "blue": ("#2f62a3", "#6c9fdc"),
    "red": ("#c02f10", "#f07560"),
    "orange": ("#b8560f", "#f0954e"),
}

RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.75rem 1.5rem 4rem}
h1{font-size:1.45rem;line-height:1.25;margin:0 0 1rem;font-weight:650}
h2{font-size:1.1rem;line-height:1.3;margin:0;font-weight:650}
h3{font-size:.95rem;margin:0;font-weight:600}
h4{font-size:.85rem;margin:0;font-weight:600;overflow-wrap:anywhere}
p,ul{margin:.6rem 0}
p,li{max-width:52rem;overflow-wrap:anywhere}
ul{padding-left:1.2rem}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:.15em}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
code,pre{font:.9em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--soft);border:1px solid var(--line);padding:.6rem .8rem;margin:.6rem 0;overflow-x:auto}
.box{border:1px solid var(--line);border-left:4px solid var(--good);background:var(--mark);padding:.8rem 1.1rem;margin:0 0 1rem}
.box.warn{border-left-color:var(--bad);background:var(--warn)}
.box p{margin:.3rem 0;max-width:60rem}
.box p strong:first-child{font-size:1.1rem}
.notes{color:var(--quiet);font-size:.93rem}
.notes strong{color:var(--text)}
nav{border-top:1px solid var(--line);border-bottom:1px solid var(--line);padding:.55rem 0;margin:1.25rem 0 0;font-size:.88rem}
nav ul{display:flex;flex-wrap:wrap;gap:.15rem 1.15rem;list-style:none;margin:0;padding:0}
section{padding:1.5rem 0 .25rem}
section section{padding:.5rem 0 0}
[id]{scroll-margin-top:3.25rem}
details{border-bottom:1px solid var(--line)}
summary{cursor:pointer;padding:.6rem 0;color:var(--quiet);font-size:.93rem}
summary h2,summary h3{display:inline;color:var(--text);margin-right:.6rem}
summary h2{font-size:1rem}
summary:hover h2,summary:hover h3{color:var(--link)}
details>.body{padding:0 0 1.1rem}
h2+details{margin-top:.7rem}
section>details{border-bottom:0;border-top:1px solid var(--line)}
section>details:last-child{border-bottom:1px solid var(--line)}
.scroll{overflow-x:auto;margin:.7rem 0;border:1px solid var(--line)}
table{border-collapse:collapse;width:100%;font-size:.86rem;line-height:1.4;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .65rem;text-align:left;vertical-align:top}
td{border-top:1px solid var(--line)}
th{background:var(--soft);font-weight:600;vertical-align:bottom}
strong code{font-weight:600}
td code{white-space:nowrap}
.n{text-align:right}
td.n{white-space:nowrap}
th.n{min-width:4.2rem}
td:first-child:not(.n){min-width:8rem}
td:last-child:not(.n):not(:only-child){min-width:14rem}
tr.chosen td{background:var(--mark)}
tr.chosen strong{color:var(--good)}
tr.fails td strong{color:var(--bad)}
tr.absent td{color:var(--quiet)}
.cards{list-style:none;margin:.7rem 0;padding:0;display:grid;gap:.6rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,19.5rem),1fr))}
.cards li{display:flex;gap:.8rem;align-items:flex-start;border:1px solid var(--line);padding:.65rem .75rem;min-width:0;max-width:none}
.cards li>div{flex:1;min-width:0}
.cards img{flex:none;display:block;max-width:96px;background:var(--soft);image-rendering:auto}
.cards .gone{flex:none;width:96px;margin:0;color:var(--quiet);font-size:.78rem;line-height:1.35}
.cards p{margin:0;color:var(--quiet);font-size:.8rem}
dl{margin:.2rem 0 0;font-size:.82rem;line-height:1.5;font-variant-numeric:tabular-nums}
dl div{display:flex;justify-content:space-between;gap:.75rem}
dt{color:var(--quiet);min-width:0;overflow-wrap:anywhere}
dd{margin:0;text-align:right}
dl .flip dt,dl .flip dd{color:var(--bad)}
figure{margin:1rem 0}
figure .scroll{padding:.4rem}
figcaption{font-size:.86rem;color:var(--quiet);margin-bottom:.35rem}
.plot{display:block;width:100%;min-width:40rem;height:auto}
footer{margin-top:2rem;color:var(--quiet);font-size:.82rem}
@media (max-width:40rem){
main{padding:1.1rem .9rem 3rem}
td:last-child:not(.n):not(:only-child){min-width:21rem}
}
@media print{
@page{margin:14mm}
html{color-scheme:light}
body{font-size:10pt}
main{max-width:none;padding:0}
nav{display:none}
details::details-content{content-visibility:visible;block-size:auto}
details>*{display:block}
summary{list-style:none}
summary::-webkit-details-marker{display:none}
summary::marker{content:""}
tr,.cards li,figure{break-inside:avoid}
h2,h3,summary{break-after:avoid}
.scroll{overflow:visible}
table{font-size:7.5pt}
td code{white-space:normal;overflow-wrap:anywhere}
th,td{padding:.2rem .35rem}
th.n,td:first-child:not(.n){min-width:0}
td:last-child:not(.n):not(:only-child){min-width:7rem}
.plot{min-width:0}
}
"""


def style() -> str:
    """The style sheet: the light colours, the dark ones for a screen that wants them, the rules."""
    light, dark = (
        "".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1)
    )
    return (
        f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{RULES}"
    )
