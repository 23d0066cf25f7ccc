// Logs in with the key that follows the # of the address, which browsers send to no server.
"use strict";

const key = decodeURIComponent(location.hash.slice(1));
if (key.startsWith("dashtam_")) {
  history.replaceState(null, "", location.pathname + location.search); // the key does not stay in the history
  document.getElementById("key").value = key;
  document.getElementById("login").requestSubmit();
}
