/** Calls of the service. Addresses are relative, so the page also works below a path of a proxy. */

const KEY_NAME = "heatquery-api-key";

/** A failed call, in words for people; `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(status, title, detail, { code = "", retryAfter = null } = {}) {
    super(title);
    Object.assign(this, { status, title, detail, code, retryAfter });
  }
}

/** Keep the API key for this tab, and for no longer than it lives. */
export function keepApiKey(key) {
  sessionStorage.setItem(KEY_NAME, key);
}

export function hasApiKey() {
  return sessionStorage.getItem(KEY_NAME) !== null;
}

/** Every loaded model; empty while the service loads. */
export async function getModels() {
  return (await call("models")).json();
}

/** Heat values of an analysed picture, at the resolution of the model's cells. */
export async function getHeat(imageId, kind, className, signal) {
  const query = { image_id: imageId, kind, format: "json" };
  if (className) query.class_name = className;
  return (await call("heatmap", { query, signal })).json();
}

/** The picture as the service sees it, for types that browsers cannot decode; its longest side is limited. */
export async function getView(imageId, signal) {
  const query = { image_id: imageId, opacity: 0, legend: false, format: "webp" };
  return (await call("heatmap", { query, signal })).blob();
}

/** @param {(share: number) => void} onProgress called with 0 to 1 */
export function detect(file, query, onProgress, signal) {
  return upload("detect", query, untyped(file), onProgress, signal);
}

/** What a file is, its bytes say, and not its name. */
export function untyped(file) {
  return new Blob([file], { type: "application/octet-stream" });
}

/** POST a body. XMLHttpRequest, because fetch cannot tell how far an upload is. */
export function upload(path, query, body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${path}?${new URLSearchParams(query)}`);
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status >= 200 && request.status < 300
        ? resolve(JSON.parse(request.responseText))
        : reject(toError(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
}

/** Any other call; an answer that is an error is thrown. */
export async function call(path, { method = "GET", query = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(query)}`, { method, headers: keyHeaders(), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) {
    throw toError(response.status, await response.text(), response.headers.get("Retry-After"));
  }
  return response;
}

function keyHeaders() {
  const key = sessionStorage.getItem(KEY_NAME);
  return key ? { "X-API-Key": key } : {};
}

/** Where no answer came, or half of one. */
export function unreachable() {
  return new ApiError(
    0,
    "The service did not answer",
    "It may be stopped, or the connection broke. A picture that is far too large can also be cut off like this.",
    { retryAfter: 0 },
  );
}

/** A problem+json body as an ApiError; a proxy in between may answer in something else. */
function toError(status, text, retryAfter) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // not JSON: the status must do
  }
  const seconds = Number.parseInt(retryAfter ?? "", 10);
  return new ApiError(status, body.title ?? `The service answered ${status}`, body.detail ?? "", {
    code: String(body.type ?? "").split(":").pop(),
    retryAfter: Number.isFinite(seconds) ? seconds : [429, 503, 504].includes(status) ? 1 : null,
  });
}
