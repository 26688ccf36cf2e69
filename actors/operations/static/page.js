// Keeps an open page true, filters the board, and shows times as the reader's clock does. Everything works without it, once loaded.
"use strict";

(() => {
  const SILENT_MS = 8000; // The server says something every five seconds at least; so much silence means that nobody is there.
  const AGAIN_MS = 1000;
  const AGAIN_MS_MAX = 10000;

  // The link to the service

  const state = document.querySelector("[data-link]");
  const path = document.body.dataset.stream;
  let source = null;
  let watch = 0;
  let again = 0;
  let pause = AGAIN_MS;

  function show(link, said) {
    if (state.dataset.link === link && state.querySelector(".said").textContent === said) return;
    state.dataset.link = link;
    state.querySelector(".said").textContent = said;
    document.body.toggleAttribute("data-lost", link === "lost");
  }

  function heard() {
    clearTimeout(watch);
    watch = setTimeout(lost, SILENT_MS);
    pause = AGAIN_MS;
    show("open", "Live");
  }

  function lost() {
    clearTimeout(watch);
    clearTimeout(again);
    if (source) source.close();
    source = null;
    show("lost", "Reconnecting …");
    again = setTimeout(open, pause);
    pause = Math.min(pause * 1.6, AGAIN_MS_MAX);
  }

  async function open() {
    clearTimeout(again);
    if (document.body.hasAttribute("data-lost") && (await isSignedOut())) {
      location.reload();
      return;
    }
    if (source) source.close();
    source = new EventSource(path);
    clearTimeout(watch);
    watch = setTimeout(lost, SILENT_MS);
    source.addEventListener("error", lost);
    source.addEventListener("beat", heard);
    source.addEventListener("parts", (event) => {
      heard();
      put(JSON.parse(event.data));
    });
    source.addEventListener("trouble", () => {
      heard();
      show("lost", "Elasticsearch does not answer");
    });
    source.addEventListener("gone", () => {
      heard();
      show("lost", "This has been deleted");
    });
  }

  // An event source does not say why it failed; a session that has ended needs the reader, not another try.
  async function isSignedOut() {
    try {
      return (await fetch("/api/overview", { method: "GET", cache: "no-store" })).status === 401;
    } catch {
      return false;
    }
  }

  function put(parts) {
    for (const [key, html] of Object.entries(parts)) {
      const place = document.querySelector(`[data-live="${CSS.escape(key)}"]`);
      if (!place || place.innerHTML === html) continue;
      if ("shape" in place.dataset) {
        location.reload();
        return;
      }
      const focus = place.contains(document.activeElement) ? mark(document.activeElement) : null;
      place.innerHTML = html;
      clocks(place);
      if (focus) place.querySelector(focus)?.focus({ preventScroll: true });
    }
    filter();
  }

  function mark(one) {
    if (one.id) return `#${CSS.escape(one.id)}`;
    if (one.getAttribute("href")) return `[href="${CSS.escape(one.getAttribute("href"))}"]`;
    const form = one.closest("form");
    return form ? `[action="${CSS.escape(form.getAttribute("action"))}"] button` : null;
  }

  // Times in the reader's zone

  function clocks(root) {
    for (const one of root.querySelectorAll("time[datetime]")) {
      const at = new Date(one.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      one.title = at.toLocaleString();
      if ("clock" in one.dataset) one.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    }
  }

  // The filter of the board

  const form = document.querySelector("[data-filter]");

  function filter() {
    if (!form) return;
    const text = form.elements.text.value.trim().toLowerCase();
    const wanted = form.elements.state.value;
    const counts = {};
    let shown = 0;
    const rows = document.querySelectorAll("tr[data-search]");
    for (const row of rows) {
      const fits = row.dataset.search.includes(text);
      counts[row.dataset.state] = (counts[row.dataset.state] ?? 0) + fits;
      row.hidden = !(fits && (!wanted || row.dataset.state === wanted));
      shown += !row.hidden;
    }
    for (const one of form.querySelectorAll("[data-count]")) {
      const key = one.dataset.count;
      const all = Object.values(counts).reduce((sum, each) => sum + each, 0);
      one.textContent = (key === "all" ? all : (counts[key] ?? 0)).toLocaleString("en");
    }
    document.querySelector("[data-none]").hidden = shown > 0;
    form.querySelector("[data-told]").dataset.wanted = `${shown} of ${rows.length} connectors shown`;
  }

  function tell() {
    filter();
    const told = form.querySelector("[data-told]");
    told.textContent = told.dataset.wanted;
    const query = new URLSearchParams();
    if (form.elements.text.value) query.set("text", form.elements.text.value);
    if (form.elements.state.value) query.set("state", form.elements.state.value);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  }

  if (form) {
    form.addEventListener("input", tell);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      tell();
    });
    document.querySelector("[data-clear]")?.addEventListener("click", (event) => {
      event.preventDefault();
      form.elements.text.value = "";
      form.elements.state.value = "";
      tell();
      form.elements.text.focus();
    });
    document.addEventListener("keydown", (event) => {
      const busy = event.target.closest("input, textarea, select, [contenteditable]");
      if (event.key === "/" && !busy && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        form.elements.text.focus();
      }
    });
    filter();
  }

  // A button is pressed once

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    for (const one of event.target.querySelectorAll("button")) setTimeout(() => (one.disabled = true));
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const one of document.querySelectorAll("button[disabled]")) one.disabled = false;
  });

  // A notice belongs to the press, not to the address

  if (document.querySelector("[data-notice]")) {
    const query = new URLSearchParams(location.search);
    query.delete("told");
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  }

  clocks(document);
  if (path) {
    open();
    window.addEventListener("online", lost);
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible" && !source) open();
    });
  }
})();
