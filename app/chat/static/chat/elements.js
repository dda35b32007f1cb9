/** The pieces of which the pages' scripts build what they show. */

/** As many as chat.css has; a prime, so that app1:8001 and app2:8002 differ. */
const HUES = 7;

export function element(name, className, content = "") {
  const made = document.createElement(name);
  made.className = className;
  // Never innerHTML: names and texts are other people's.
  made.textContent = content;
  return made;
}

export function avatar(user) {
  const made = element("span", "avatar", [...user][0].toUpperCase());
  made.dataset.hue = hue(user);
  made.setAttribute("aria-hidden", "true");
  return made;
}

export function workerBadge(worker, title) {
  const made = element("span", "worker", worker);
  made.dataset.hue = hue(worker);
  made.title = title;
  return made;
}

/** The address of a socket on this page's own host. */
export function socketUrl(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/** The same name has the same colour on every page. */
function hue(name) {
  let hash = 0;
  for (const character of name) {
    hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  }
  return String(hash % HUES);
}
