// Cells of the list of runs.
window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {};

(() => {
  const element = (tag, props, ...children) =>
    window.React.createElement(tag, props, ...children);
  const two = (first, second, props) =>
    element(
      "div",
      { className: "two-lines", ...props },
      element("div", null, first),
      element("div", null, second || "\u00a0"),
    );
  const functions = window.dashAgGridComponentFunctions;

  functions.RunName = ({ data }) =>
    two(data.id, data.model, { title: data.id });

  functions.RunStatus = ({ data }) =>
    two(
      element("span", { className: "status-chip " + data.status }, data.status),
      data.optimizer,
      { title: data.note || undefined },
    );

  // In the reader's own time zone; the date only where it is not today.
  functions.RunStep = ({ data }) => {
    const when = new Date(data.updated * 1000);
    const today = when.toDateString() === new Date().toDateString();
    const text = today
      ? when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false })
      : when.toLocaleDateString([], { day: "numeric", month: "short" });
    const step = data.step === null ? "–" : data.step.toLocaleString("en");
    return two(step, text, { title: "updated " + when.toLocaleString() });
  };
})();
