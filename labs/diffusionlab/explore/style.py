"""The panels' style sheet: the page's own colours, so that light and dark follow the theme at once."""

STYLE = """\
.dl-explorer { display: block; border: 1px solid var(--jp-border-color2, #ccc); border-radius: 8px; padding: 12px 14px;
  max-width: 1240px; container-type: inline-size; overflow: hidden; }
.dl-explorer .widget-html-content { line-height: 1.4; }
.dl-title { font-size: 16px; font-weight: 600; margin: 0 0 8px; }
.dl-body { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.dl-side { display: flex; flex: 1 1 240px; flex-direction: column; max-width: 300px; }
.dl-stage { display: flex; flex: 3 1 440px; flex-direction: column; gap: 12px; min-width: 0; }
.dl-row { display: flex; flex-wrap: wrap; gap: 14px 22px; align-items: flex-start; }
.dl-view { min-width: 0; height: auto; transition: opacity .15s .15s; }
.dl-view .widget-html-content, .dl-view > div { width: 100%; }
.dl-old { opacity: .45; }
.dl-figure { display: grid; grid-template-columns: auto 1fr; margin: 0; gap: 2px 6px; }
.dl-figure figcaption { grid-column: 1 / 3; font-size: 13px; font-weight: 600; margin: 0 0 2px; }
.dl-columns { grid-column: 2; display: flex; font-size: 12px; }
.dl-columns span { flex: 1; text-align: center; white-space: nowrap; }
.dl-rows { grid-column: 1; display: flex; flex-direction: column; font-size: 12px; }
.dl-rows span { flex: 1; display: flex; align-items: center; justify-content: flex-end; white-space: nowrap; }
.dl-figure img { grid-column: 2; width: 100%; height: auto; display: block; image-rendering: pixelated; }
.dl-drawn img { image-rendering: auto; }
/* A drawing is dark ink on nothing. On a dark page the ink is turned light; the turn of the hue brings the colours back. */
[data-jp-theme-light="false"] .dl-drawn img, .vscode-dark .dl-drawn img { filter: invert(1) hue-rotate(180deg); }
.dl-numbers { margin: 10px 0 0; padding: 8px 0 0; border-top: 1px solid var(--jp-border-color2, #ccc); font-size: 13px; }
.dl-numbers div { display: flex; justify-content: space-between; gap: 10px; padding: 1px 0; }
.dl-numbers dt { font-weight: 400; opacity: .8; }
.dl-numbers dd { margin: 0; font-variant-numeric: tabular-nums; font-weight: 600; text-align: right; }
.dl-message { border: 2px dashed var(--jp-warn-color1, #d55e00); border-radius: 6px; padding: 10px 14px; font-size: 14px; }
.dl-status { display: flex; align-items: center; justify-content: space-between; gap: 12px; min-height: 34px; }
.dl-progress { display: flex; align-items: center; gap: 10px; font-size: 13px; }
.dl-progress progress { width: 160px; accent-color: var(--jp-brand-color1, #0072b2); }
.dl-explorer .jupyter-button:disabled { opacity: .35; }
.dl-explorer :focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2); outline-offset: 2px; }
.dl-bands { display: flex; justify-content: space-between; }
.dl-bands .widget-vslider { width: 34px; margin: 0; }
/* The still stands in for the panel where no panel is. */
.jp-OutputArea-child:has(.dl-explorer) + .jp-OutputArea-child:has(.jp-RenderedImage) { display: none; }
"""
