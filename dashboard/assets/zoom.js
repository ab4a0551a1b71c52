// A figure from the server replaces the one that is shown, but not the part of it
// that the user zoomed into. (plotly's own `uirevision` does this too, were it not
// that the plot component writes each zoom back into the figure it was given.)
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.dynoscope = {
  keepZoom: (figure) => {
    if (!figure) return window.dash_clientside.no_update;
    const { id } = window.dash_clientside.callback_context.outputs_list;
    const key = JSON.stringify(id, Object.keys(id).sort());
    const shown = document.getElementById(key)?.querySelector(".js-plotly-plot");
    const before = shown?.layout;
    if (before?.uirevision !== figure.layout.uirevision) return figure;
    const layout = { ...figure.layout };
    for (const axis of ["xaxis", "yaxis"]) {
      const was = before[axis];
      const kind = shown._fullLayout[axis].type;
      if (was?.autorange === false && (layout[axis].type || "linear") === kind)
        layout[axis] = { ...layout[axis], range: [...was.range], autorange: false };
    }
    return { ...figure, layout };
  },
};
