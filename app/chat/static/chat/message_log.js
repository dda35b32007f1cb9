/** The log of a room: messages by their numbers, with days between them and what is not yet sent below. */

import { avatar, element, workerBadge } from "./elements.js";

/** The box into which images are fitted, in CSS pixels. */
const PICTURE_WIDTH = 280;
const PICTURE_HEIGHT = 320;

/** How long a thumbnail may take before the original is shown instead. */
const THUMBNAIL_PATIENCE = 5000;

/** How long a screen reader may take to notice a change that is not to be read out. */
const QUIET_TIME = 1000;

/** How far from the end, in CSS pixels, a reader still counts as being there. */
const END_MARGIN = 80;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const calendarWithYear = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export class MessageLog {
  #box = document.querySelector("#log");
  #live = document.querySelector("#live");
  #list = document.querySelector("#messages");
  #pending = document.querySelector("#pending");
  #empty = document.querySelector("#empty");
  #newer = document.querySelector("#newer");
  #user;
  /** Whether the reader is at the newest message, and wants to stay there. */
  #atEnd = true;
  #quietTimer = null;

  /**
   * @param {string} user whose own messages stand on the right
   * @param {() => void} moved the reader may have come to the end
   */
  constructor(user, moved) {
    this.#user = user;
    this.#newer.addEventListener("click", () => this.#scrollToEnd());
    this.#box.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#box;
      this.#atEnd = scrollHeight - scrollTop - clientHeight < END_MARGIN;
      this.#newer.hidden ||= this.#atEnd;
      moved();
    });
    // A phone's keyboard takes half of the log's height.
    new ResizeObserver(() => this.#atEnd && this.#scrollToEnd()).observe(this.#box);
  }

  /** The number up to which the reader has seen everything; 0 while they are not at the end. */
  get seen() {
    return this.#atEnd ? Number(this.#list.lastElementChild?.dataset.sequence ?? 0) : 0;
  }

  /** New messages: they are read out, unless the page has only just been opened. */
  append(messages) {
    if (this.#list.childElementCount === 0) {
      this.#beQuiet();
    }
    for (const message of messages) {
      this.#insert(message);
    }
    this.#empty.hidden = true;
    if (this.#atEnd || messages.some(({ user }) => user === this.#user)) {
      this.#scrollToEnd();
    } else {
      this.#newer.hidden = false;
    }
  }

  /** Messages from before the first: what the reader looks at stays where it is. */
  prepend(messages) {
    this.#beQuiet();
    const fromEnd = this.#box.scrollHeight - this.#box.scrollTop;
    for (const message of messages) {
      this.#insert(message);
    }
    this.#box.scrollTop = this.#box.scrollHeight - fromEnd;
  }

  /** What is not confirmed yet, oldest first. */
  showPending(texts) {
    const items = texts.map((text) => {
      const made = element("li", "own");
      made.append(element("p", "facts", "Sending…"), element("p", "text", text));
      return made;
    });
    this.#pending.replaceChildren(...items);
    if (texts.length > 0) {
      this.#empty.hidden = true;
    }
    if (this.#atEnd) {
      this.#scrollToEnd();
    }
  }

  /** Say so when nothing has been said; only once the history has come can that be told. */
  showWhetherEmpty() {
    this.#empty.hidden = this.#list.childElementCount + this.#pending.childElementCount > 0;
  }

  setImage(sequence, image) {
    const link = this.#item(sequence)?.querySelector(".picture");
    if (link) {
      link.querySelector("img").src = image.thumbnail;
    }
  }

  /** Give the keyboard a place when the control it was on goes away. */
  focus() {
    this.#box.focus();
  }

  #item(sequence) {
    return this.#list.querySelector(`[data-sequence="${sequence}"]`);
  }

  /** Put a message where its number belongs; almost always that is the end. */
  #insert(message) {
    // A number comes twice only after the server's database was restored.
    this.#item(message.sequence)?.remove();
    const made = this.#render(message);
    let previous = this.#list.lastElementChild;
    while (previous && !(Number(previous.dataset.sequence) < message.sequence)) {
      previous = previous.previousElementSibling;
    }
    if (previous) {
      previous.after(made);
    } else {
      this.#list.prepend(made);
    }
    this.#separate(made);
    const next = made.nextElementSibling;
    this.#separate(next?.className === "day" ? next.nextElementSibling : next);
  }

  /** Have a line with the day above a message exactly where the one before is of another day. */
  #separate(item) {
    if (!item) {
      return;
    }
    let previous = item.previousElementSibling;
    if (previous?.className === "day") {
      previous.remove();
      previous = item.previousElementSibling;
    }
    const date = new Date(item.querySelector("time").dateTime);
    if (!previous || !sameDay(date, new Date(previous.querySelector("time").dateTime))) {
      item.before(element("li", "day", dayName(date)));
    }
  }

  #render({ sequence, user, message, sent_at: sentAt, worker, image }) {
    const made = element("li", user === this.#user ? "own" : "");
    made.dataset.sequence = sequence;
    const facts = element("p", "facts");
    const badge = workerBadge(worker, `Sent through worker ${worker}`);
    facts.append(element("span", "user", user), " ", time(sentAt), " ", badge);
    made.append(avatar(user), facts);
    made.append(image ? this.#renderImage(user, image) : element("p", "text", message));
    return made;
  }

  #renderImage(user, { url, thumbnail, width, height }) {
    const link = element("a", "picture");
    link.href = url;
    link.target = "_blank";
    const picture = element("img", "");
    picture.alt = `Image from ${user}, opens in a new tab`;
    // Its place is kept before it is there, so that nothing jumps.
    const scale = Math.min(1, PICTURE_WIDTH / width, PICTURE_HEIGHT / height);
    picture.width = Math.max(1, Math.round(width * scale));
    picture.height = Math.max(1, Math.round(height * scale));
    if (thumbnail) {
      picture.src = thumbnail;
    } else {
      setTimeout(() => {
        picture.src ||= url;
      }, THUMBNAIL_PATIENCE);
    }
    link.append(picture);
    return link;
  }

  /** What happens now is no news: it is not read out. */
  #beQuiet() {
    clearTimeout(this.#quietTimer);
    this.#live.setAttribute("aria-live", "off");
    this.#quietTimer = setTimeout(() => this.#live.removeAttribute("aria-live"), QUIET_TIME);
  }

  #scrollToEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
  }
}

function time(sentAt) {
  const date = new Date(sentAt);
  const made = element("time", "", clock.format(date));
  made.dateTime = sentAt;
  made.title = full.format(date);
  return made;
}

function sameDay(one, other) {
  return one.toDateString() === other.toDateString();
}

function dayName(date) {
  const today = new Date();
  const yesterday = new Date(today);
  yesterday.setDate(today.getDate() - 1);
  if (sameDay(date, today)) {
    return "Today";
  }
  if (sameDay(date, yesterday)) {
    return "Yesterday";
  }
  return (date.getFullYear() === today.getFullYear() ? calendar : calendarWithYear).format(date);
}
