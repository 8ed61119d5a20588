// Shows the document that the page names. Without validatorUrl the viewer would show it to a service elsewhere.
const viewer = document.getElementById("viewer");
SwaggerUIBundle({
  url: viewer.dataset.document,
  dom_id: "#viewer",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
