// Tells the plots when the page turns dark or light, whoever turned it.
new MutationObserver(() => {
  const scheme = document.documentElement.dataset.mantineColorScheme;
  window.dash_clientside?.set_props?.("scheme", { data: scheme });
}).observe(document.documentElement, {
  attributes: true,
  attributeFilter: ["data-mantine-color-scheme"],
});
