// Keeps the part #live of a page up to date: events of the server say when to read it anew.
"use strict";

const PAUSE_MS = 2000; // the server looks at its processes every two seconds
const QUIET_MS = 15000; // times like "2 minutes ago" grow old by themselves
const liveness = document.getElementById("liveness");
let due = false;
let reading = false;

function say(text) {
  if (liveness.textContent !== text) liveness.textContent = text;
}

async function read() {
  if (reading || !due || document.hidden) return;
  const field = document.activeElement;
  if (field && field.matches("#live input, #live select")) return; // somebody is typing
  due = false;
  reading = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    replace(page);
    say("live");
  } catch {
    say("not live: reload this page");
  } finally {
    setTimeout(() => { reading = false; read(); }, PAUSE_MS);
  }
}

function replace(page) {
  const [old, fresh] = [document.getElementById("live"), page.getElementById("live")];
  const focused = old.contains(document.activeElement) ? [...old.querySelectorAll("a, button, input, select")].indexOf(document.activeElement) : -1;
  const id = document.activeElement.id;
  for (const field of old.querySelectorAll("input[id], select[id]")) {
    const same = fresh.querySelector(`#${field.id}`);
    if (same) same.value = field.value; // what somebody has typed stays
  }
  old.replaceWith(fresh);
  document.title = page.title;
  if (focused < 0) return;
  const next = (id && document.getElementById(id)) || fresh.querySelectorAll("a, button, input, select")[focused];
  if (next) next.focus({ preventScroll: true });
}

function ask() {
  due = true;
  read();
}

const events = new EventSource("/status/events");
events.onopen = () => say("live");
events.onerror = () => say("not live: it is tried again");
for (const name of ["run", "refresh", "login", "reset"]) events.addEventListener(name, ask);
setInterval(ask, QUIET_MS);
document.addEventListener("visibilitychange", ask);
document.addEventListener("focusout", () => setTimeout(read, 0));
