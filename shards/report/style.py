"""How the page looks: dark and light, on a phone and on paper. The colours are those of the sheets of `shards show`."""

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfc; --card: #ffffff; --ink: #1b1b20; --soft: #5a5a66; --line: #d9d9e0;
  --bar: #b5367a; --other: #8f93a3; --mark: #0b57d0; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #18181c; --card: #222228; --ink: #e6e6ea; --soft: #a9a9b6;
  --line: #3a3a44; --bar: #f1605d; --other: #777b8c; --mark: #8ab4f8; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .4rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; overflow-wrap: anywhere; }
p { margin: .3rem 0 .6rem; max-width: 60rem; }
a { color: var(--mark); }
code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem;
  max-height: 30rem; overflow: auto; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .5rem 0; }
.soft { color: var(--soft); } .bad { color: var(--bad); }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
dl.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .8rem; }
dl.tiles dt { color: var(--soft); font-size: .85rem; } dl.tiles dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
.scroll { overflow-x: auto; }
.tables { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; min-width: 60%; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { text-align: left; font-weight: 400; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; }
thead th { color: var(--soft); font-size: .85rem; } .number { text-align: right; white-space: nowrap; }
.words { min-width: 9rem; } td.words:last-child { min-width: 22rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
  margin: .6rem 0 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem; }
.chart svg { width: 100%; height: auto; display: block; } .chart figcaption { color: var(--soft); }
.chart b { color: var(--ink); }
svg text { fill: var(--soft); font-size: 11px; } .bar { fill: var(--bar); } .other { fill: var(--other); }
.tick { stroke: var(--soft); } .grid { stroke: var(--line); stroke-dasharray: 3 3; }
.median { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 3; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
.bar-key::before { background: var(--bar); } .other-key::before { background: var(--other); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); gap: .8rem;
  list-style: none; padding: 0; margin: .6rem 0; }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem;
  break-inside: avoid; min-width: 0; }
.cards img { width: 100%; height: auto; display: block; border-radius: 4px; background: #18181c; }
.cards p { margin: .25rem 0; font-size: .85rem; overflow-wrap: anywhere; } .cards code { font-size: 12px; }
.flag { display: inline-block; border: 1px solid var(--line); border-radius: 99px; padding: 0 .5em;
  margin-right: .3em; }
footer { margin-top: 2rem; color: var(--soft); font-size: .85rem; }
@media print { :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --bar: #b5367a; --other: #8f93a3; --mark: #000; --bad: #900; }
  body { max-width: none; padding: 0; font-size: 11pt; } nav, .skip { display: none; }
  pre { max-height: none; overflow: visible; } .scroll { overflow: visible; }
  .chart, .cards li, tr, dl.tiles div { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .bar, .other, .key::before, .cards img { print-color-adjust: exact; } }
"""
