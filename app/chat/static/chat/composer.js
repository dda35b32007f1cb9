/** Where messages are written: text, and images that are attached, pasted or dropped. */

const page = document.querySelector("#main");
const form = document.querySelector("#composer");
const text = document.querySelector("#text");
const send = document.querySelector("#send");
const attach = document.querySelector("#attach");
const file = document.querySelector("#file");
const problem = document.querySelector("#problem");

/** @param {import("./connection.js").RoomConnection} connection */
export function startComposer(connection) {
  const submit = () => {
    if (text.value.trim() !== "" && connection.send(text.value.trimEnd())) {
      text.value = "";
      text.focus();
      showProblem("");
    }
  };
  const sendImages = (files) => {
    showProblem("");
    for (const image of files) {
      connection.sendImage(image);
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  text.addEventListener("keydown", (event) => {
    // While an input method composes a character, Enter only confirms it.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  text.addEventListener("input", () => {
    if (text.value.trim() !== "") {
      connection.typing();
    }
  });

  attach.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    sendImages(file.files);
    // The same file again is a change, too.
    file.value = "";
  });
  text.addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    if (files.length > 0) {
      event.preventDefault();
      sendImages(files);
    }
  });
  page.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) {
      event.preventDefault();
      page.dataset.drop = "";
    }
  });
  page.addEventListener("dragleave", (event) => {
    if (!page.contains(event.relatedTarget)) {
      delete page.dataset.drop;
    }
  });
  page.addEventListener("drop", (event) => {
    delete page.dataset.drop;
    if (event.dataTransfer.files.length > 0) {
      event.preventDefault();
      sendImages(event.dataTransfer.files);
    }
  });
}

/** Nothing more can be said on this page. */
export function stopComposer() {
  for (const control of [text, send, attach]) {
    control.disabled = true;
  }
}

/** @param {string} sentence empty when there is none any more */
export function showProblem(sentence) {
  problem.textContent = sentence;
  problem.hidden = sentence === "";
}
