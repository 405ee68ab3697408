"use strict";
// Draws every figure of the page in the colours that the reader has chosen: light, dark, or those of paper.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const brighter = { "#0072B2": "#5AB4E8", "#4D4D4D": "#BFC5CE", "#009E73": "#35C79B", "#D55E00": "#F28543",
    "#56B4E9": "#BFE3F7" };
  const swap = (value) => {
    if (Array.isArray(value)) return value.map(swap);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, swap(inner)]));
    }
    return brighter[value] || value;
  };
  const draw = (onPaper) => {
    const night = dark.matches && !onPaper;
    const text = night ? "#E6EAF0" : "#1C2430", grid = night ? "#333D49" : "#E3E7ED";
    for (const box of document.querySelectorAll(".plot")) {
      const spec = JSON.parse(document.getElementById(box.dataset.figure).textContent);
      const layout = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
        margin: { l: 60, r: 16, t: 36, b: 52 }, hovermode: "closest",
        legend: { orientation: "h", yref: "container", y: 0.01, yanchor: "bottom", x: 0, font: { size: 11 } }, ...spec.layout,
        font: { color: text, size: 12, family: "system-ui, sans-serif" },
      };
      const title = typeof layout.title === "string" ? { text: layout.title } : layout.title;
      // a long one gets smaller letters where the figure is narrow
      if (title && title.text) {
        const size = Math.max(11, Math.min(17, 1.7 * box.clientWidth / title.text.length));
        layout.title = { font: { size }, ...title };
      }
      for (const key of Object.keys(layout)) {
        if (/^[xy]axis/.test(key)) {
          layout[key] = { gridcolor: grid, zerolinecolor: grid, automargin: true, ...layout[key] };
        }
      }
      Plotly.react(box, night ? swap(spec.data) : spec.data, layout, { responsive: true, displaylogo: false,
        displayModeBar: false });
    }
  };
  draw(false);
  dark.addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
})();
