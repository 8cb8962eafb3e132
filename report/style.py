"""The page's style sheet: one measure of text, two palettes, figures that line up."""

CSS = """\
:root {
  color-scheme: light dark;
  --paper: #f6f6f3; --card: #ffffff; --ink: #1d2025; --muted: #5b636e; --line: #dcdedf;
  --first: #2b5fa6; --second: #b4501f;
  --good: #1d6b3f; --warn: #8a5a00; --bad: #a62620;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121417; --card: #1b1e23; --ink: #e4e6e9; --muted: #9ba4af; --line: #343941;
    --first: #82b1f2; --second: #f2a273;
    --good: #7fcf9f; --warn: #e6bd6a; --bad: #f08f88;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums lining-nums;
}
h1 { margin: 0; font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 0.9rem; font-size: 1.3rem; letter-spacing: -0.01em; }
h3 { margin: 0; font-size: 1rem; }
p { margin: 0.6rem 0; max-width: 46rem; }
a { color: var(--first); }
.eyebrow { margin: 0; color: var(--muted); font-size: 0.875rem; }
.verdict { margin: 0.9rem 0 1.6rem; max-width: none; font-size: 1.1rem; text-wrap: pretty; }
.badge {
  display: inline-block; margin-right: 0.35rem; padding: 0.05rem 0.6rem;
  border: 1px solid currentColor; border-radius: 1rem; font-size: 0.9rem; font-weight: 600;
}
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.highlights { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; margin: 0; }
.highlights div, .curve, pre { background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem; }
.highlights div { padding: 0.9rem 1.1rem 1rem; }
.highlights dt { color: var(--muted); font-size: 0.875rem; }
.highlights dd { margin: 0; font-size: 1.75rem; font-weight: 600; line-height: 1.3; letter-spacing: -0.01em; }
.highlights dd.note { color: var(--muted); font-size: 0.875rem; font-weight: 400; letter-spacing: 0; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; margin-top: 1.4rem; font-size: 0.875rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.9375rem; }
th, td { padding: 0.36rem 1.6rem 0.36rem 0; border-bottom: 1px solid var(--line); }
th, td { text-align: left; vertical-align: baseline; }
th { color: var(--muted); font-weight: 500; font-size: 0.875rem; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
#numbers table { width: 46rem; max-width: 100%; }
#numbers td:last-child { width: 42%; color: var(--muted); }
.bars { width: 100%; }
.bars td:nth-child(3) { width: 60%; }
.bars td:last-child { color: var(--muted); white-space: nowrap; }
.bar { height: 0.7rem; min-width: 2px; background: var(--first); border-radius: 2px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.875em; }
td code { overflow-wrap: break-word; }
#how-to-reproduce td code { overflow-wrap: anywhere; }
pre { margin: 0; padding: 0.9rem 1.1rem; overflow-x: auto; line-height: 1.5; }
pre code { font-size: inherit; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--first); }
details > pre, details > .scroll { margin-top: 0.8rem; }
figure { margin: 0; }
figcaption { color: var(--muted); font-size: 0.875rem; }
.curves { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.curve { display: flex; flex-direction: column; min-width: 0; padding: 1rem 1.1rem 0.8rem; }
.curve.wide { grid-column: 1 / -1; }
.curve svg { display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round; }
.curve .small, .curve .large { margin-top: auto; padding-top: 0.6rem; }
.wide .small { display: none; }
.keys { display: flex; flex-wrap: wrap; gap: 0.1rem 1.2rem; margin: 0.3rem 0 0; padding: 0; list-style: none; }
.keys { color: var(--muted); font-size: 0.8125rem; }
.keys i { display: inline-block; width: 1.3rem; margin-right: 0.45rem; }
.keys i { border-top: 2px solid var(--first); vertical-align: middle; }
.keys .raw { opacity: 0.4; }
.keys .evaluation { border-color: var(--second); }
.keys .other { border-color: var(--muted); opacity: 0.5; }
.sample { margin: 1rem 0; }
.sample pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.sample figcaption { margin-top: 0.3rem; }
.prompt { color: var(--first); font-weight: 600; }
@media (max-width: 46rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.7rem; }
  .highlights { grid-template-columns: 1fr 1fr; gap: 0.6rem; }
  .highlights div { padding: 0.7rem 0.8rem; }
  .highlights dd { font-size: 1.4rem; }
  .curves { grid-template-columns: 1fr; }
  .curve { padding: 0.8rem 0.7rem 0.6rem; }
  .wide .small { display: block; }
  .wide .large { display: none; }
  th, td { padding-right: 1rem; }
  .bars td:nth-child(3) { display: none; }
}
@media print {
  :root { --paper: #ffffff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  .curve, .sample, tr, .highlights div { break-inside: avoid; }
  .sample pre, pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""
