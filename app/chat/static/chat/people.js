/** Who is in the room, and who types. */

import { avatar, element } from "./elements.js";

/** Milliseconds after which nobody types who has not been heard of again. */
const TYPING_TIME = 3000;

/** Where the list has a column of its own; chat.css has the same width. */
const WIDE = "(min-width: 56rem)";

const box = document.querySelector("#people");
const count = document.querySelector("#count");
const list = document.querySelector("#users");

/** Unfold the list where there is room for it. */
export function placePeople() {
  const wide = matchMedia(WIDE);
  box.open = wide.matches;
  wide.addEventListener("change", () => {
    box.open = wide.matches;
  });
}

/**
 * @param {string[]} users
 * @param {string} self the reader's own name
 */
export function showPeople(users, self) {
  count.textContent = users.length;
  list.replaceChildren(
    ...users.map((user) => {
      const made = element("li", "");
      made.append(avatar(user), element("span", "user", user));
      if (user === self) {
        made.append(element("span", "self", "you"));
      }
      return made;
    }),
  );
}

/** The line that says who types. */
export class TypingLine {
  #line = document.querySelector("#typing");
  /** Timers by user. */
  #timers = new Map();

  started(user) {
    clearTimeout(this.#timers.get(user));
    this.#timers.set(user, setTimeout(() => this.ended(user), TYPING_TIME));
    this.#show();
  }

  ended(user) {
    clearTimeout(this.#timers.get(user));
    if (this.#timers.delete(user)) {
      this.#show();
    }
  }

  #show() {
    const users = [...this.#timers.keys()];
    if (users.length === 0) {
      this.#line.textContent = "";
    } else if (users.length === 1) {
      this.#line.textContent = `${users[0]} is typing…`;
    } else if (users.length === 2) {
      this.#line.textContent = `${users[0]} and ${users[1]} are typing…`;
    } else {
      this.#line.textContent = "Several people are typing…";
    }
  }
}
