/** Words for people: the live status, what is going on, and what went wrong with a way out. */

import { ApiError, hasApiKey, keepApiKey } from "./api.js";

const byId = (id) => document.getElementById(id);

let retry = null; // what "Try again" and a new key do; its change also ends a countdown

/** Tell a screen reader. */
export function say(text) {
  byId("status").textContent = text;
}

/**
 * @param {number} [share] 0 to 1; without it, the bar says only that something goes on
 * @param {string} [figures] a second line
 */
export function showBusy(text, share, figures = "") {
  const isNew = byId("busy").hidden;
  byId("busy").hidden = false;
  byId("busy-text").textContent = `${text} …`;
  byId("busy-figures").textContent = figures;
  byId("busy-figures").hidden = !figures;
  if (share === undefined) byId("progress").removeAttribute("value");
  else byId("progress").value = share;
  if (isNew || share === undefined) say(text); // not every per cent
}

export function hideBusy() {
  byId("busy").hidden = true;
  byId("cancel").disabled = false;
}

/**
 * Say what went wrong.
 * @param {(() => void) | null} again tries once more; offered where that can help
 */
export function showProblem(error, again = null) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  const wantsKey = known && error.status === 401;
  byId("problem-title").textContent = known ? error.title : "The page failed";
  byId("problem-detail").textContent = wantsKey ? keyWords() : sentence(known ? error.detail : String(error));
  byId("key-form").hidden = !wantsKey;
  byId("problem").hidden = false;
  retry = again;
  const mayPass = !known || error.retryAfter !== null || error.code === "unknown-image";
  const canHelp = again !== null && mayPass && !wantsKey;
  byId("retry").hidden = !canHelp;
  if (canHelp) countDown((known && error.retryAfter) || 0, again);
  if (wantsKey) byId("key").focus();
}

/** The service's own words are about headers, which nobody sends by hand here. */
function keyWords() {
  return hasApiKey() ? "The service does not take this key." : "The service answers only those who have a key.";
}

/** The details of the service begin in lower case, as parts of a log line do. */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function closeProblem() {
  retry = null;
  byId("problem").hidden = true;
}

/** Let "Try again" wait as long as the service asked for. */
async function countDown(seconds, again) {
  const button = byId("retry");
  for (let left = seconds; left > 0 && retry === again; left -= 1) {
    button.disabled = true;
    button.textContent = `Try again in ${left} s`;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  if (retry !== again) return;
  button.disabled = false;
  button.textContent = "Try again";
}

function tryAgain() {
  const again = retry;
  closeProblem();
  again?.();
}

export function listenForMessages() {
  byId("dismiss").addEventListener("click", closeProblem);
  byId("retry").addEventListener("click", tryAgain);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepApiKey(byId("key").value.trim());
    tryAgain();
  });
}
