import { createHash } from "node:crypto";

/** The page's whole style. Text has at least 4.5:1 contrast, bars and marks at least 3:1, in both colour schemes. */
export const PAGE_STYLE = `
:root{color-scheme:light dark;--back:#f6f7f5;--panel:#fff;--ink:#1c2430;--soft:#566172;--line:#dfe3e6;--bar:#2f6db5;
--ok:#1d7048;--warn:#8a5a00;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--back:#11151b;--panel:#191f28;--ink:#e7eaf0;--soft:#a1abbb;--line:#2c3542;--bar:#6aa5ea;--ok:#63c797;--warn:#e5b454;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 18px;padding-top:22px;padding-bottom:14px}
h1{font-size:19px;margin:0;letter-spacing:-.01em}
h2{font-size:15px;margin:0}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
a:hover{text-decoration-color:currentColor}
a:focus-visible,summary:focus-visible{outline:2px solid var(--bar);outline-offset:2px;border-radius:3px}
nav{display:flex;gap:12px}
nav a[aria-current]{font-weight:650;text-decoration:none}
.fresh{margin-left:auto}
.ok{color:var(--ok)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 12px;padding:0}
.tiles div,section{background:var(--panel);border:1px solid var(--line);border-radius:10px}
.tiles div{padding:12px 16px}
dt{color:var(--soft);font-size:13px}
dd{margin:0;font-size:24px;line-height:1.25;letter-spacing:-.02em}
dd+dd{font-size:13px;color:var(--soft);letter-spacing:0;line-height:1.4}
section{padding:16px;margin-bottom:12px;min-width:0}
section>div:first-child{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline;margin-bottom:10px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 12px;align-items:start}
@media(max-width:760px){.two{grid-template-columns:1fr}main,header,footer{padding-left:12px;padding-right:12px}
.fresh{margin-left:0}.tiles{grid-template-columns:1fr 1fr}.tiles div:last-child{grid-column:1/-1}}
.total{font-size:22px;letter-spacing:-.02em;margin-left:auto;overflow-wrap:anywhere}
.plot{display:grid;grid-template-columns:auto 1fr;gap:4px 10px}
.plot svg{display:block;width:100%;height:190px}
.scale{display:flex;flex-direction:column;justify-content:space-between;text-align:right}
.days{grid-column:2;display:flex;justify-content:space-between}
.scale,.days,th,summary,footer{font-size:13px;color:var(--soft)}
rect{fill:var(--bar)}rect.today{opacity:.78}line{stroke:var(--line);vector-effect:non-scaling-stroke}
.share{display:block;width:100%;height:4px;margin-top:3px}.share rect:first-child{fill:var(--line)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:baseline}
th{font-weight:500}tr:last-child td{border-bottom:0}
td:last-child,th:last-child{padding-right:0}
.n{text-align:right;white-space:nowrap}
.name{overflow-wrap:anywhere}
details{margin-top:10px}summary{cursor:pointer;width:max-content}
details table{max-width:420px}
footer{padding-top:4px;padding-bottom:28px;display:flex;flex-wrap:wrap;gap:4px 18px}
`;

/** Nothing may load, run, frame or submit; the one style is allowed by its digest. */
export const PAGE_POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash("sha256").update(PAGE_STYLE).digest("base64")}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");
