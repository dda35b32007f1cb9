/** The line that says whether a room is connected, and through which worker. */

import { workerBadge } from "./elements.js";

export class ConnectionLine {
  #line = document.querySelector("#connection");
  #text = document.querySelector("#state");
  #detail = document.querySelector("#detail");
  #now = document.querySelector("#now");
  #countdown = null;
  /** Whether there has been a connection before. */
  #again = false;

  /** @param {() => void} retry do not wait any longer */
  constructor(retry) {
    this.#now.addEventListener("click", retry);
  }

  /** @param {object} state of a RoomConnection */
  show(state) {
    clearInterval(this.#countdown);
    this.#line.dataset.state = state.name;
    this.#detail.replaceChildren();
    if (state.name === "connected") {
      this.#again = true;
      this.#say("Connected");
      const title = `This page is served by worker ${state.worker}`;
      this.#detail.append("via ", workerBadge(state.worker, title));
    } else if (state.name === "connecting") {
      this.#say(this.#again ? "Reconnecting" : "Connecting…");
    } else if (state.name === "waiting") {
      this.#again = true;
      this.#say("Reconnecting");
      this.#count(state.milliseconds);
    } else {
      this.#say("Disconnected");
    }
    const waiting = state.name === "waiting";
    if (!waiting && document.activeElement === this.#now) {
      this.#line.focus();
    }
    this.#now.hidden = !waiting;
  }

  /** A screen reader says each state once: neither the seconds nor every attempt. */
  #say(words) {
    if (this.#text.textContent !== words) {
      this.#text.textContent = words;
    }
  }

  #count(milliseconds) {
    const until = Date.now() + milliseconds;
    const tick = () => {
      const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1000));
      this.#detail.textContent = `in ${seconds} s`;
    };
    tick();
    this.#countdown = setInterval(tick, 1000);
  }
}
