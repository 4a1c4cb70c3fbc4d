/** Calls of the service about scenes: pictures of any size, as jobs. */

import { call, unreachable, untyped, upload } from "./api.js";

const FINAL = ["done", "failed", "cancelled"];
const AGAIN_MS = 2000;
const MOST_SILENT = 15; // times that nothing new is heard before the page gives up

/** Send a file as a scene; in a form, which carries its name. */
export function sendScene(file, query, onProgress, signal) {
  const form = new FormData();
  form.append("file", untyped(file), file.name);
  return upload("scenes", query, form, onProgress, signal);
}

/** The newest first. */
export async function listScenes() {
  return (await call("scenes")).json();
}

/** Cancel a scene that waits or is worked on. */
export function cancelScene(id) {
  return call(`scenes/${id}/cancel`, { method: "POST" });
}

/** Delete a scene that has ended. */
export function deleteScene(id) {
  return call(`scenes/${id}`, { method: "DELETE" });
}

/** Let a failed or cancelled scene go on from its last finished tile. */
export function retryScene(id) {
  return call(`scenes/${id}/retry`, { method: "POST" });
}

export async function getResult(id, query, signal) {
  return (await call(`scenes/${id}/result`, { query, signal })).blob();
}

export async function getHeatRaster(id, signal) {
  return (await call(`scenes/${id}/heat.tif`, { signal })).blob();
}

/** The whole scene, small. */
export async function getPreview(id, side, signal) {
  return (await call(`scenes/${id}/preview`, { query: { side }, signal })).blob();
}

/** Ask until it is answered: what is made of a large scene may take longer than one call, and is then there. */
export async function patiently(ask, signal) {
  for (let silent = 1; ; silent += 1) {
    try {
      return await ask();
    } catch (error) {
      signal.throwIfAborted();
      if (!error.retryAfter || silent >= MOST_SILENT) throw error;
      await pause(error.retryAfter * 1000);
    }
  }
}

/**
 * Hear of every change of a scene until it has ended; returns the last one. fetch, because an EventSource sends no key.
 * A stream that breaks is taken up again, so that a service may start anew meanwhile.
 */
export async function followScene(id, onChange, signal) {
  for (let silent = 0; silent < MOST_SILENT; silent += 1) {
    try {
      for await (const job of events(await call(`scenes/${id}/events`, { signal }))) {
        silent = 0;
        onChange(job);
        if (FINAL.includes(job.state)) return job;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error.status !== 0 && !error.retryAfter) throw error;
    }
    await pause(AGAIN_MS);
    signal.throwIfAborted();
  }
  throw unreachable();
}

/** The data of each server-sent event. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => {
      throw unreachable();
    });
    if (done) return;
    const blocks = (text + value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length) yield JSON.parse(data.join("\n")); // others are comments that keep proxies from closing
    }
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
