// Stands in for Plaid's own script: window.Plaid.create({token, onSuccess, onExit}) makes a Link with open() and exit().
(function () {
  "use strict";
  const base = document.currentScript.src.replace(/v2\/stable\/.*$/, "sandbox/");

  function ask(path, body) {
    // Plain text, so that the browser sends no preflight request.
    return fetch(base + path, { method: "POST", body: JSON.stringify(body) }).then(function (answer) {
      return answer.json().then(function (found) {
        if (!answer.ok) { throw found; }
        return found;
      });
    });
  }

  function element(name, properties, children) {
    const made = Object.assign(document.createElement(name), properties);
    (children || []).forEach(function (child) { made.append(child); });
    return made;
  }

  window.Plaid = {
    create: function (asked) {
      let dialog = null;

      function close() {
        if (dialog) { dialog.close(); dialog.remove(); dialog = null; }
      }

      function exit(error) {
        close();
        asked.onExit(error || null, {});
      }

      function show(logins) {
        const choice = element("select", { id: "sandbox-link-login", name: "login" });
        logins.forEach(function (login) { choice.append(element("option", { value: login, textContent: login })); });
        const allow = element("button", { type: "submit", textContent: "Consent" });
        const cancel = element("button", { type: "button", textContent: "Cancel", className: "quiet" });
        const form = element("form", { method: "dialog" }, [
          element("h2", { id: "sandbox-link-title", textContent: "Sandbox Bank" }),
          element("p", { textContent: "This stands in for Plaid Link. Choose a login of the sandbox." }),
          element("p", {}, [element("label", { htmlFor: choice.id, textContent: "Login" }), " ", choice]),
          element("p", {}, [allow, " ", cancel]),
        ]);
        dialog = element("dialog", {}, [form]);
        dialog.setAttribute("aria-labelledby", "sandbox-link-title");
        dialog.addEventListener("cancel", function (event) { event.preventDefault(); exit(); });
        cancel.addEventListener("click", function () { exit(); });
        form.addEventListener("submit", function (event) {
          event.preventDefault();
          ask("consent", { link_token: asked.token, login: choice.value }).then(function (handed) {
            close();
            asked.onSuccess(handed.public_token, handed.metadata);
          }, exit);
        });
        document.body.append(dialog);
        dialog.showModal();
        choice.focus();
      }

      return {
        open: function () { ask("logins", { link_token: asked.token }).then(function (f) { show(f.logins); }, exit); },
        exit: exit,
        destroy: close,
      };
    },
  };
})();
