// A figure from the server replaces the one that is shown, but not the part of it
// that the user zoomed into. (plotly's own `uirevision` does this too, were it not
// that the plot component writes each zoom back into the figure it was given.)
window.dash_clientside = window.dash_clientside || {};
const plotOf = (id) =>
  document
    .getElementById(JSON.stringify({ ...id, type: "plot" }, Object.keys(id).sort()))
    ?.querySelector(".js-plotly-plot");
window.dash_clientside.dynoscope = {
  keepZoom: (figure) => {
    if (!figure) return window.dash_clientside.no_update;
    const { id } = window.dash_clientside.callback_context.outputs_list;
    const shown = plotOf(id);
    const before = shown?.layout;
    if (before?.uirevision !== figure.layout.uirevision) {
      window.dash_clientside.set_props({ ...id, type: "window" }, { data: null });
      return figure;
    }
    const layout = { ...figure.layout };
    for (const axis of ["xaxis", "yaxis"]) {
      const was = before[axis];
      const kind = shown._fullLayout[axis].type;
      if (was?.autorange === false && (layout[axis].type || "linear") === kind)
        layout[axis] = { ...layout[axis], range: [...was.range], autorange: false };
    }
    return { ...figure, layout };
  },
  // The steps that are seen, once some of them are not.
  seenSteps: (_, before) => {
    const { id } = window.dash_clientside.callback_context.outputs_list;
    const axis = plotOf(id)?._fullLayout?.xaxis;
    const range = axis && !axis.autorange && axis.type === "linear" && axis.range;
    const steps = range ? [Math.floor(range[0]), Math.ceil(range[1]) + 1] : null;
    const same = JSON.stringify(steps) === JSON.stringify(before ?? null);
    return same ? window.dash_clientside.no_update : steps;
  },
};
