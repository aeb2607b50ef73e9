// Whether the service can judge: asked often until it can, seldom afterwards; and the key it may want.

import { onKeyWanted } from "./api.js";
import { byId, show } from "./dom.js";

const SOON_MS = 1000;
const LATER_MS = 15_000;
const WRONG_KEY = "The service does not know that key.";
const KEPT = "It is kept until this tab is closed.";
const WORDS = { loading: "Loading the model…", ready: "Ready", gone: "Not reachable" };

/** @param {() => void} onReady told each time the service has become ready */
export function watchService(onReady) {
  let before = null;
  const look = async () => {
    const state = await currentState();
    const element = byId("state");
    if (state !== before) {
      element.dataset.state = state;
      element.textContent = WORDS[state];
      if (state === "ready") onReady();
    }
    before = state;
    setTimeout(look, state === "ready" ? LATER_MS : SOON_MS);
  };
  look();
}

async function currentState() {
  try {
    const response = await fetch("v2/health/ready", { cache: "no-store" });
    return response.ok ? "ready" : "loading";
  } catch {
    return "gone";
  }
}

/** The key is asked for when the service wants one, and only then. */
export function connectKey() {
  const form = byId("key");
  onKeyWanted((wasWrong) => {
    show(form, true);
    byId("key-note").textContent = wasWrong ? WRONG_KEY : KEPT;
    byId("key-input").focus();
    return new Promise((resolve) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        const key = byId("key-input").value.trim();
        if (!key) return;
        byId("key-input").value = "";
        show(form, false);
        resolve(key);
      };
    });
  });
}
