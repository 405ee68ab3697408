"use strict";
// Draws every figure of the page as Optuna has laid it out.
for (const box of document.querySelectorAll(".plotly-graph-div")) {
  const spec = JSON.parse(document.getElementById(box.dataset.figure).textContent);
  Plotly.newPlot(box, spec.data, spec.layout, { responsive: true, displaylogo: false });
}
