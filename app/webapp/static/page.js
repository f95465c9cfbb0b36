// Requests the facts about this visit from /api/request, and shows them.

const main = document.querySelector("main");
const button = document.querySelector("#send");
const state = document.querySelector("#state");
const tally = document.querySelector("#tally");
const answered = new Map();

// What fetch rejects with, as a message for visitors.
const REASONS = { TimeoutError: "no response within 10 seconds", TypeError: "the server is not reachable" };

function show(answer) {
  for (const element of document.querySelectorAll("[data-field]")) {
    const value = answer[element.dataset.field];
    const text = Array.isArray(value) ? value.join(", ") || "none" : String(value ?? "unknown");
    element.classList.toggle("new", element.textContent !== text);
    element.textContent = text;
  }
}

function count({ replica, worker }) {
  const name = `${replica} · ${worker}`;
  answered.set(name, (answered.get(name) ?? 0) + 1);
  const rows = [...answered].map(([who, times]) => {
    const row = document.createElement("li");
    const label = document.createElement("span");
    const bar = document.createElement("progress");
    const number = document.createElement("span");
    label.textContent = who;
    label.className = "who";
    bar.max = Math.max(...answered.values());
    bar.value = times;
    bar.ariaHidden = "true";
    number.textContent = `${times}×`;
    row.append(label, bar, number);
    row.classList.toggle("last", who === name);
    return row;
  });
  tally.replaceChildren(...rows);
  tally.closest("section").hidden = false;
}

async function send() {
  button.disabled = true;
  main.ariaBusy = "true";
  const start = performance.now();
  try {
    const response = await fetch(main.dataset.url, {
      cache: "no-store",
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(10_000),
    });
    if (!response.ok) {
      const id = response.headers.get("X-Request-ID");
      throw new Error(`status ${response.status}` + (id ? `, request id ${id}` : ""));
    }
    const answer = await response.json();
    show(answer);
    count(answer);
    state.textContent = `Response in ${Math.round(performance.now() - start)} ms`;
    main.classList.remove("failed");
  } catch (error) {
    const reason = REASONS[error.name] ?? error.message;
    state.textContent = `The request failed: ${reason}. Send it again in a moment.`;
    main.classList.add("failed");
  } finally {
    main.ariaBusy = "false";
    button.disabled = false;
  }
}

button.addEventListener("click", async () => {
  await send();
  button.focus();
});
send();
