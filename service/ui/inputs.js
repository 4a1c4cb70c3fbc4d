/** Ways for a file to come: chosen, dropped anywhere, pasted. */

import { ApiError } from "./api.js";
import { showProblem } from "./messages.js";

const byId = (id) => document.getElementById(id);

/** @param {(file: File) => void} onFile */
export function listenForFiles(onFile) {
  const takeFirst = ([first]) => {
    if (first) return onFile(first);
    const way = "Drop or paste the file itself: the service fetches no links.";
    showProblem(new ApiError(0, "No picture in it", way));
  };
  for (const id of ["choose", "choose-another"]) byId(id).addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) takeFirst(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop-cover").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop-cover").hidden = true; // it has left the window
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop-cover").hidden = true;
    takeFirst(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.target !== byId("key")) takeFirst(event.clipboardData.files);
  });
}
