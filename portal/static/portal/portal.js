// Gatehouse in the browser. Every page works without this file; it only makes things quicker to see.
"use strict";

(() => {
  const body = document.body;
  const dialog = document.getElementById("dialog");
  const trouble = document.getElementById("trouble");

  // ── Is this session still alive? An open tab notices its end within seconds, at once when looked at. ──

  const EVERY = 4000;
  let asking = false;
  let leaving = false;

  async function ask() {
    if (asking || leaving || document.visibilityState !== "visible") return;
    asking = true;
    try {
      const answer = await fetch(body.dataset.alive, {
        cache: "no-store",
        credentials: "same-origin",
        headers: { Accept: "application/json" },
      });
      if (answer.status === 401) leave();
    } catch {
      // Offline, or the server restarts: that says nothing about the session. The next question will.
    } finally {
      asking = false;
    }
  }

  function leave() {
    leaving = true;
    const next = body.dataset.next || location.pathname + location.search;
    location.assign(`${body.dataset.login}?next=${encodeURIComponent(next)}`);
  }

  if (body.dataset.alive) {
    setInterval(ask, EVERY);
    addEventListener("focus", ask);
    addEventListener("pageshow", ask);
    document.addEventListener("visibilitychange", ask);
  }

  // ── htmx notes the address of the page in the browser, for a cache that is switched off. Nothing of ours stays there. ──

  function forget() {
    try {
      sessionStorage.removeItem("htmx-current-path-for-history");
    } catch {
      // A browser that allows no storage has kept nothing.
    }
  }

  forget();
  for (const name of ["htmx:pushedIntoHistory", "htmx:replacedInHistory", "htmx:historyRestore"]) {
    document.addEventListener(name, forget);
  }

  // ── Passwords can be shown, with the caret where it was, and are hidden again before they are sent or left behind:
  //    a browser keeps what stood in a plain field. ──

  function offer() {
    for (const button of document.querySelectorAll("[data-shows]")) button.hidden = false;
  }

  function show(button, shown) {
    const field = document.getElementById(button.dataset.shows);
    const { selectionStart, selectionEnd, selectionDirection } = field;
    field.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", shown);
    if (field === document.activeElement) field.setSelectionRange(selectionStart, selectionEnd, selectionDirection);
  }

  function hide(where) {
    where.querySelectorAll("[data-shows][aria-pressed=true]").forEach((button) => show(button, false));
  }

  offer();
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-shows]");
    if (button) show(button, button.getAttribute("aria-pressed") !== "true");
  });
  document.addEventListener("mousedown", (event) => {
    if (event.target.closest("[data-shows]")) event.preventDefault(); // the focus stays in the field, and a phone's keys stay up
  });
  document.addEventListener("submit", (event) => hide(event.target));
  addEventListener("pagehide", () => hide(document));

  // ── The browser knows its time zone; the person may take it. ──

  for (const button of document.querySelectorAll("[data-takes-zone]")) {
    const field = document.getElementById(button.dataset.takesZone);
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zone || zone === field.value) continue;
    button.textContent = button.dataset.text.replace("{zone}", zone);
    button.hidden = false;
    button.addEventListener("click", () => {
      field.value = zone;
      button.hidden = true;
      field.focus();
    });
  }

  // ── What is shown once can be printed and copied. ──

  document.addEventListener("click", async (event) => {
    if (event.target.closest("[data-prints]")) print();
    const button = event.target.closest("[data-copies]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent.trim());
      button.textContent = button.dataset.done;
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copies)); // no leave to write: the rest is Ctrl-C
    }
  });

  // ── A colour that is being chosen is tried out at once; field and picker say the same. ──

  document.addEventListener("input", (event) => {
    const picker = event.target.closest("[data-picks]");
    const field = picker ? document.getElementById(picker.dataset.picks) : event.target.closest("[data-colours]");
    if (!field) return;
    const colour = (picker || field).value.trim().toLowerCase().replace(/^#?/, "#");
    if (!/^#[0-9a-f]{6}$/.test(colour)) return;
    if (picker) field.value = colour;
    else document.querySelectorAll(`[data-picks="${field.id}"]`).forEach((other) => (other.value = colour));
    document.querySelectorAll("[data-preview]").forEach((each) => each.style.setProperty("--brand", colour));
  });

  // ── Tick all, and say how many are ticked. The bar itself appears and counts by style sheet. ──

  function count(say) {
    for (const form of document.querySelectorAll(".ticking")) {
      const boxes = [...form.querySelectorAll("tbody [name=ids]")];
      const ticked = boxes.filter((box) => box.checked).length;
      const all = form.querySelector("[data-ticks-all]");
      if (all) {
        all.checked = ticked > 0 && ticked === boxes.length;
        all.indeterminate = ticked > 0 && ticked < boxes.length;
      }
      const status = form.querySelector("[data-ticked]");
      if (say && status) status.textContent = status.dataset.ticked.replace("{n}", ticked);
    }
  }

  document.addEventListener("change", (event) => {
    const form = event.target.closest(".ticking");
    if (!form) return;
    if (event.target.matches("[data-ticks-all]")) {
      form.querySelectorAll("tbody [name=ids]").forEach((box) => (box.checked = event.target.checked));
    }
    count(true);
  });

  document.addEventListener("reset", () => setTimeout(count, 0, true));
  addEventListener("pageshow", () => count(false));

  // ── The dialog opens when HTMX has put a form into it, and closes when nothing is left to ask. ──

  document.addEventListener("htmx:afterSwap", (event) => {
    count(false);
    offer();
    if (!dialog || event.detail.target !== dialog) return;
    if (dialog.querySelector("form")) {
      if (!dialog.open) dialog.showModal();
    } else {
      dialog.close();
    }
  });

  dialog?.addEventListener("click", (event) => {
    if (!event.target.closest("[data-keeps]")) return;
    event.preventDefault();
    dialog.close();
  });

  dialog?.addEventListener("close", () => {
    dialog.replaceChildren();
    // The button that opened it may be gone with its row: then go on reading at the proof.
    if (document.activeElement === body) document.querySelector("#proof [tabindex]")?.focus({ preventScroll: true });
  });

  // ── A list that is looked at asks what happened since. Nobody has done anything: it is no activity, and its failure no news. ──

  function pulse() {
    const list = document.querySelector("[data-pulse]");
    if (list && document.visibilityState === "visible") htmx.trigger(list, "pulse");
  }

  setInterval(pulse, 5000);
  document.addEventListener("visibilitychange", pulse);

  // ── An HTMX request that failed must not look like nothing. ──

  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, (event) => {
      if (body.dataset.alive) ask();
      if (event.detail.elt?.matches("[data-pulse]")) return;
      if (!trouble) return;
      trouble.textContent = trouble.dataset.text;
      trouble.hidden = false;
      dialog?.close();
    });
  }

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (trouble && !event.detail.elt.matches("[data-pulse]")) trouble.hidden = true;
  });
})();
