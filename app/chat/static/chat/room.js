/** The page of a room: shows what a RoomConnection tells, and sends what is typed. */

import { RoomConnection } from "./connection.js";

/** As many as chat.css has; a prime, so that app1:8001 and app2:8002 differ. */
const HUES = 7;

const page = document.querySelector("#main");
const log = document.querySelector("#log");
const list = document.querySelector("#messages");
const empty = document.querySelector("#empty");
const newer = document.querySelector("#newer");
const problem = document.querySelector("#problem");
const composer = document.querySelector("#composer");
const text = document.querySelector("#text");
const send = document.querySelector("#send");
const connectionLine = document.querySelector("#connection");
const stateText = document.querySelector("#state");
const detail = document.querySelector("#detail");

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

let countdown = null;
/** Whether the reader is at the newest message, and wants to stay there. */
let atEnd = true;

function element(name, className, content) {
  const made = document.createElement(name);
  made.className = className;
  // Never innerHTML: names and texts are other people's.
  made.textContent = content;
  return made;
}

/** The same name has the same colour on every page. */
function hue(name) {
  let hash = 0;
  for (const character of name) {
    hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  }
  return String(hash % HUES);
}

function badge(worker) {
  const made = element("span", "worker", worker);
  made.dataset.hue = hue(worker);
  made.title = `Sent through worker ${worker}`;
  return made;
}

function time(sentAt) {
  const date = new Date(sentAt);
  const today = date.toDateString() === new Date().toDateString();
  const made = element("time", "", (today ? "" : `${calendar.format(date)}, `) + clock.format(date));
  made.dateTime = sentAt;
  made.title = full.format(date);
  return made;
}

function item({ sequence, user, message, sent_at: sentAt, worker }) {
  const made = element("li", user === page.dataset.user ? "own" : "", "");
  made.dataset.sequence = sequence;
  const avatar = element("span", "avatar", [...user][0].toUpperCase());
  avatar.dataset.hue = hue(user);
  avatar.setAttribute("aria-hidden", "true");
  const facts = element("p", "facts", "");
  facts.append(element("span", "user", user), " ", time(sentAt), " ", badge(worker));
  made.append(avatar, facts, element("p", "text", message));
  return made;
}

/** Put messages where their numbers belong; almost always that is the end. */
function show(messages) {
  for (const message of messages) {
    let previous = list.lastElementChild;
    while (previous && Number(previous.dataset.sequence) > message.sequence) {
      previous = previous.previousElementSibling;
    }
    const made = item(message);
    if (previous) {
      previous.after(made);
    } else {
      list.prepend(made);
    }
  }
  empty.hidden = list.childElementCount > 0;
  if (messages.length === 0) {
    return;
  }
  if (atEnd || messages.at(-1).user === page.dataset.user) {
    scrollToEnd();
  } else {
    newer.hidden = false;
  }
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

function showState(state) {
  clearInterval(countdown);
  connectionLine.dataset.state = state.name;
  send.disabled = state.name !== "connected";
  detail.replaceChildren();
  if (state.name === "connected") {
    stateText.textContent = "Connected";
    const worker = badge(state.worker);
    worker.title = `This page is served by worker ${state.worker}`;
    detail.append("via ", worker);
    // From now on, and not for what was there before, new messages are read out.
    log.setAttribute("aria-busy", "false");
  } else if (state.name === "connecting") {
    stateText.textContent = "Connecting…";
  } else if (state.name === "waiting") {
    // The number is outside the live region: a screen reader says this once, not each second.
    stateText.textContent = "Reconnecting";
    const until = Date.now() + state.milliseconds;
    const tick = () => {
      detail.textContent = `in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`;
    };
    tick();
    countdown = setInterval(tick, 1000);
  } else {
    stateText.textContent = "Disconnected";
    showProblem(`${state.reason} Reload the page to try again.`);
    text.disabled = true;
  }
}

function showProblem(sentence) {
  problem.textContent = sentence;
  problem.hidden = sentence === "";
}

function submit() {
  if (text.value.trim() !== "" && connection.send(text.value.trimEnd())) {
    text.value = "";
    text.focus();
    showProblem("");
  }
}

const url = new URL(page.dataset.socket, location.href);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const connection = new RoomConnection(url.href, {
  messages: show,
  state: showState,
  error: ({ error }) => showProblem(error),
});

composer.addEventListener("submit", (event) => {
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
newer.addEventListener("click", scrollToEnd);
log.addEventListener("scroll", () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  newer.hidden ||= atEnd;
});
// A phone's keyboard takes half of the log's height.
new ResizeObserver(() => atEnd && scrollToEnd()).observe(log);

connection.connect();
