"""The panels' style sheet: the page's own colours, so that light and dark follow the theme at once."""

STYLE = """\
.dl-explorer { display: block; border: 1px solid var(--jp-border-color2, #ccc); border-radius: 8px; padding: 12px 14px;
  max-width: 1240px; container-type: inline-size; overflow: hidden; }
.dl-explorer .widget-html-content { line-height: 1.4; }
.dl-title { font-size: 16px; font-weight: 600; margin: 0 0 8px; }
.dl-body { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.dl-side { display: flex; flex: 1 1 240px; flex-direction: column; max-width: 290px; }
.dl-stage { display: flex; flex: 3 1 440px; flex-direction: column; gap: 12px; min-width: 0; }
.dl-row { display: flex; flex-wrap: wrap; gap: 14px 22px; align-items: flex-start; }
.dl-view { min-width: 0; height: auto; transition: opacity .15s .15s; }
.dl-view .widget-html-content, .dl-view > div { width: 100%; }
.dl-old { opacity: .45; }
.dl-figure { display: grid; grid-template-columns: minmax(0, 1fr); margin: 0; gap: 2px 6px; }
.dl-figure:has(.dl-rows) { grid-template-columns: auto minmax(0, 1fr); }
.dl-figure figcaption { grid-column: 1 / -1; font-size: 13px; font-weight: 600; margin: 0 0 2px; }
.dl-columns { grid-column: -2; display: flex; font-size: 12px; }
.dl-columns span { flex: 1; text-align: center; white-space: nowrap; }
.dl-rows { grid-column: 1; display: flex; flex-direction: column; font-size: 12px; }
.dl-rows span { flex: 1; display: flex; align-items: center; justify-content: flex-end; white-space: nowrap; }
.dl-figure img { grid-column: -2; width: 100%; height: auto; display: block; image-rendering: pixelated; }
.dl-drawn img { image-rendering: auto; }
/* A drawing is dark ink on nothing. On a dark page the ink is turned light; the turn of the hue brings the colours back. */
[data-jp-theme-light="false"] .dl-drawn img, .vscode-dark .dl-drawn img { filter: invert(1) hue-rotate(180deg); }
.dl-numbers { border-top: 1px solid var(--jp-border-color2, #ccc); font-size: 13px; padding: 6px 0 0; }
.dl-numbers div { display: flex; justify-content: space-between; gap: 10px; padding: 1px 0; }
.dl-numbers span { opacity: .8; }
.dl-numbers b { font-variant-numeric: tabular-nums; text-align: right; }
@container (max-width: 780px) {
  .dl-side { display: grid; grid-template-columns: 1fr 1fr; gap: 0 24px; max-width: none; flex-basis: 100%; }
  .dl-side > .dl-status, .dl-side > .dl-bands, .dl-side > :has(.dl-hint) { grid-column: 1 / 3; }
  .dl-side > .dl-table { grid-column: 1 / 3; }
  .dl-numbers { display: grid; grid-template-columns: 1fr 1fr; gap: 0 24px; }
}
.dl-message { border: 2px dashed var(--jp-warn-color1, #d55e00); border-radius: 6px; padding: 10px 14px; font-size: 14px; }
.dl-status { display: flex; align-items: center; justify-content: space-between; gap: 12px; min-height: 40px;
  margin: 4px 0; }
.dl-status .jupyter-button { flex: none; width: 70px; }
.dl-status .widget-html { min-width: 0; margin: 0; }
.dl-progress { font-size: 12px; line-height: 1.3; }
.dl-progress progress { display: block; width: 100%; min-width: 120px; accent-color: var(--jp-brand-color1, #0072b2); }
.dl-explorer .jupyter-button:disabled { opacity: .35; }
.dl-explorer :focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2); outline-offset: 2px; }
.dl-hint { font-size: 12px; opacity: .8; margin: 8px 0 0; }
.dl-bands { display: flex; justify-content: space-between; }
.dl-bands .widget-vslider { width: 34px; margin: 0; }
.dl-bands .widget-vslider .widget-label { font-size: 11px; }
.dl-pick { display: flex; flex-wrap: wrap; gap: 14px 26px; align-items: flex-start; }
.dl-points { position: relative; flex: 2 1 400px; min-width: 0; }
.dl-buttons { position: absolute; left: 0; right: 0; bottom: 0; pointer-events: none; }
.dl-buttons button { position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; padding: 0; border-radius: 50%;
  background: none; border: 2px solid transparent; cursor: pointer; pointer-events: auto; }
.dl-buttons button:hover { border-color: var(--jp-border-color0, #888); }
.dl-buttons button:focus { border-color: var(--jp-ui-font-color1, #444); outline: none; }
.dl-behind { flex: 1 1 230px; max-width: 330px; min-width: 0; }
.dl-behind > .dl-figure { display: none; }
/* The still stands in for the panel where no panel is. */
.jp-OutputArea-child:has(.dl-explorer) + .jp-OutputArea-child:has(.jp-RenderedImage) { display: none; }
"""
