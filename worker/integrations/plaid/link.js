// Opens Plaid Link with the token in the page, and puts the public token that it hands over into the page's form.
(function () {
  "use strict";
  const place = document.getElementById("front-end");
  const form = document.getElementById("handed-over");
  const told = document.getElementById("front-end-told");
  const open = document.getElementById("front-end-open");

  function tell(text) {
    told.textContent = text;
    open.hidden = false;
    open.focus();
  }

  if (!window.Plaid) {
    tell("The form of Plaid could not be loaded. Check your connection and any blocker, then reload this page.");
    open.hidden = true;
    return;
  }
  const link = window.Plaid.create({
    token: place.dataset.token,
    receivedRedirectUri: place.dataset.returnedTo || undefined,
    onSuccess: function (publicToken, metadata) {
      form.elements.public_token.value = publicToken;
      const chosen = metadata || {};
      const accounts = (chosen.accounts || []).slice(0, 50).map(function (one) {
        return { id: one.id, name: one.name, mask: one.mask, type: one.type };
      });
      form.elements.metadata.value = JSON.stringify({ institution: chosen.institution, accounts: accounts });
      told.textContent = "Thank you. The login is being linked.";
      form.submit();
    },
    onExit: function (error) {
      tell(error ? "Plaid could not go on: " + (error.display_message || error.error_code || "it gave no reason")
        : "You closed the form of Plaid. Nothing was linked.");
    },
  });
  open.addEventListener("click", function () { link.open(); });
  link.open();
})();
