// The little that the console does by itself in the browser: keys, and what is said while the
// fleet cannot be reached or the session is over.
(() => {
  let wasG = 0;
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest("input, textarea, select, [contenteditable], .ag-root");
    if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
    if (Date.now() - wasG < 1500) {
      const entry = document.querySelector(`.entry[data-key="${CSS.escape(event.key)}"]`);
      if (entry) entry.click();
    }
    wasG = event.key === "g" ? Date.now() : 0;
    if (event.key === "/") {
      const filter = document.querySelector("[data-filter] input, input[data-filter]");
      if (filter) {
        filter.focus();
        event.preventDefault();
      }
    }
  });

  // Where a row of links is wider than a telephone, the one that is shown is brought into view.
  const bring = () =>
    document
      .querySelectorAll(".tabs [aria-current], .rail [aria-current]")
      .forEach((one) => {
        const row = one.parentElement;
        row.scrollLeft = one.offsetLeft - row.offsetLeft - (row.clientWidth - one.clientWidth) / 2;
      });
  window.addEventListener("load", () => setTimeout(bring, 0));
  window.addEventListener("resize", bring);

  // A drag over a chart that zooms chooses a time range. A redraw disarms ECharts' brush and ends
  // what it draws, so it is armed by the press itself, and redraws wait until the button is up.
  const zooming = (event) => {
    const box = event.pointerType === "mouse" && event.button === 0 && event.target.closest(".zooms");
    const element = box && window.getElement && getElement(Number(box.id.slice(1)));
    return element && element.chart;
  };
  const press = (event) => {
    const chart = zooming(event);
    if (!chart) return;
    let waiting = null;
    const ended = new AbortController();
    const release = () => {
      ended.abort();
      delete chart.setOption;
      chart.dispatchAction({ type: "brush", areas: [] });
      if (waiting) chart.setOption(...waiting);
    };
    chart.dispatchAction({
      type: "takeGlobalCursor",
      key: "brush",
      brushOption: { brushType: "lineX", brushMode: "single" },
    });
    chart.setOption = (...options) => {
      waiting = options;
    };
    for (const end of ["pointerup", "pointercancel"]) {
      addEventListener(end, () => setTimeout(release), { signal: ended.signal });
    }
  };
  document.addEventListener("pointerdown", press, true);

  const say = (text, address, action) => {
    let bar = document.getElementById("away");
    if (!text) {
      if (bar) bar.remove();
      return;
    }
    if (!bar) {
      bar = document.createElement("div");
      bar.id = "away";
      bar.setAttribute("role", "alert");
      document.body.append(bar);
    }
    if (bar.dataset.text === text) return;
    bar.dataset.text = text;
    bar.textContent = text + " ";
    if (address) {
      const link = document.createElement("a");
      link.href = address;
      link.textContent = action;
      bar.append(link);
    }
  };

  const look = async () => {
    if (!window.socket) return;
    if (window.socket.connected) return say("");
    try {
      const answer = await fetch("/api/v1/me", { cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) {
        const next = encodeURIComponent(location.pathname + location.search);
        say("Your session has ended.", `/login?next=${next}`, "Log in again");
      } else if (answer.ok) {
        say("The connection was lost; it is being made again.");
      }
    } catch {
      say("The fleet does not answer. This page goes on by itself when it does.");
    }
  };
  setInterval(look, 1000);
})();
