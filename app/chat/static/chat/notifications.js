/** What a user is told on every page: how their orders fare. */

import { element, socketUrl } from "./elements.js";
import { NotificationType } from "./protocol.js";
import { ReconnectingSocket } from "./socket.js";

/** More would cover the page; the oldest goes. */
const TOASTS = 3;

const toasts = document.querySelector("#toasts");

const socket = new ReconnectingSocket(() => socketUrl(toasts.dataset.socket), {
  state() {},
  frame(frame) {
    if (frame.type === NotificationType.READY) {
      catchUp();
    } else if (frame.type === NotificationType.ORDER_UPDATE) {
      updateRow(frame);
      showToast(frame);
    }
  },
});

/** What was told while nobody listened is in the page as it is now: take its rows that are newer. */
async function catchUp() {
  if (!document.querySelector("[data-order]")) {
    return;
  }
  const response = await fetch(location.href);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const row of page.querySelectorAll("[data-order]")) {
    const shown = document.querySelector(`[data-order="${row.dataset.order}"]`);
    if (shown && updatedAt(row) > updatedAt(shown)) {
      shown.replaceWith(row);
    }
  }
}

function updatedAt(row) {
  return Date.parse(row.querySelector("time").dateTime);
}

/** Bring an order's row up to date where the page has it. */
function updateRow({ order, status, updated_at: moment }) {
  const row = document.querySelector(`[data-order="${order}"]`);
  if (!row) {
    return;
  }
  const pill = row.querySelector(".status");
  pill.dataset.status = status;
  pill.textContent = label(status);
  const time = row.querySelector("time");
  time.dateTime = moment;
  time.textContent = "just now";
  const select = row.querySelector("select");
  if (select) {
    select.value = status;
  }
}

/** The newest word on an order replaces what was said of it before. */
function showToast({ order, status, title }) {
  toasts.querySelector(`[data-toast="${order}"]`)?.remove();
  const toast = element("div", "toast");
  toast.dataset.toast = order;
  const words = element("p", "");
  const link = element("a", "", title);
  link.href = toasts.dataset.orders;
  words.append("Your order ", link, ` is now ${label(status).toLowerCase()}.`);
  const dismiss = element("button", "dismiss", "×");
  dismiss.type = "button";
  dismiss.setAttribute("aria-label", `Dismiss the notification on ${title}`);
  dismiss.addEventListener("click", () => toast.remove());
  toast.append(words, dismiss);
  toasts.append(toast);
  while (toasts.childElementCount > TOASTS) {
    toasts.firstElementChild.remove();
  }
}

function label(status) {
  return status[0].toUpperCase() + status.slice(1);
}

addEventListener("pagehide", () => socket.close());
addEventListener("pageshow", (event) => event.persisted && socket.connect());
socket.connect();
