/** The page: which view is shown, and signing in. */

import { Problem, setToken, token } from "./api.js";
import { arrive, expectArrival, fill, h } from "./dom.js";
import { showJob } from "./job_view.js";
import { deleteNow, showJobs } from "./jobs_view.js";
import { offer, showSend } from "./send_view.js";

const main = /** @type {HTMLElement} */ (document.getElementById("main"));

/** Ends what the view before has begun. */
let leaving = new AbortController();

/**
 * Views by their addresses. Each is given where to show itself, and a signal that it is left.
 *
 * @type {[RegExp, (place: HTMLElement, signal: AbortSignal, ...parts: string[]) => Promise<void> | void, string][]}
 */
const VIEWS = [
  [/^#?\/?$/, showSend, "Send"],
  [/^#\/jobs$/, showJobs, "Jobs"],
  [/^#\/jobs\/([^/]+)$/, showJob, "Job"],
];

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [pattern, view, title] = VIEWS.find(([pattern]) => pattern.test(location.hash)) ?? [null, showNothing, "Not found"];
  for (const link of document.querySelectorAll("nav a")) {
    const isCurrent = link.getAttribute("href") === (view === showSend ? "#/" : "#/jobs") && pattern !== null;
    link.toggleAttribute("aria-current", isCurrent);
    if (isCurrent) {
      link.setAttribute("aria-current", "page");
    }
  }
  document.title = `${title} · adtally`;
  const place = h("div.view");
  fill(main, place);
  try {
    const parts = pattern ? (pattern.exec(location.hash)?.slice(1) ?? []).map(decodeURIComponent) : [];
    await view(place, signal, ...parts);
  } catch (error) {
    if (signal.aborted) {
      return;
    }
    document.title = "Not shown · adtally";
    const heading = h("h1", { tabindex: -1 }, "This cannot be shown");
    fill(place, heading, h("p.error", { role: "alert" }, reason(error)),
      h("div.actions", {}, h("button", { type: "button", onclick: show }, "Try again")));
    arrive(heading);
  }
}

/** Words for what went wrong; the service's own where it has told them. */
function reason(error) {
  if (error instanceof Problem) {
    return error.message;
  }
  if (error instanceof URIError) {
    return "There is no such page.";
  }
  return error instanceof TypeError ? "The service cannot be reached. Is it still running?" : String(error);
}

function showNothing(place) {
  const heading = h("h1", { tabindex: -1 }, "There is no such page");
  fill(place, heading, h("p", {}, h("a", { href: "#/" }, "Send a file")));
  arrive(heading);
}

/**
 * Asks for a token.
 *
 * @param {HTMLElement} place
 * @param {string} refused  why the one before was not taken
 */
function showSignIn(place, refused) {
  document.title = "Sign in · adtally";
  const field = h("input", {
    id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
    pattern: "[!-~]+", title: "Letters, digits and signs of ASCII, without blanks",
    "aria-describedby": "token-hint", "aria-invalid": refused ? "true" : false,
  });
  const form = h("form.panel.signin", {
    onsubmit: async (event) => {
      event.preventDefault();
      setToken(field.value.trim());
      offerSignOut();
      expectArrival();
      await show();
    },
  },
    h("h1", { tabindex: -1 }, "Sign in"),
    h("label", { for: "token" }, "Token"),
    field,
    h("p.hint", { id: "token-hint" }, "It begins with adt_ and is kept for this tab only."),
    refused && h("p.error", { role: "alert" }, refused),
    h("button.primary", { type: "submit" }, "Sign in"),
  );
  setToken(null);
  offerSignOut();
  fill(place, form);
  field.focus();
}

function offerSignOut() {
  const place = /** @type {HTMLElement} */ (document.getElementById("session"));
  const signOut = () => {
    // With the token that they were asked for.
    deleteNow();
    setToken(null);
    offerSignOut();
    show();
  };
  fill(place, token() && h("button.link", { type: "button", onclick: signOut }, "Sign out"));
}

addEventListener("hashchange", () => {
  expectArrival();
  show();
});

// A link to the view that is shown already changes no address, but is still a wish to see it.
for (const link of document.querySelectorAll(".bar a")) {
  link.addEventListener("click", () => {
    if (link.getAttribute("href") === (location.hash || "#/")) {
      expectArrival();
      show();
    }
  });
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

// Files may be dropped anywhere, on every view.
addEventListener("dragover", (event) => {
  if (event.dataTransfer?.types.includes("Files")) {
    event.preventDefault();
    document.body.classList.add("over");
  }
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) {
    document.body.classList.remove("over");
  }
});
addEventListener("drop", (event) => {
  document.body.classList.remove("over");
  if (event.dataTransfer?.files.length) {
    event.preventDefault();
    offer([...event.dataTransfer.files]);
    if (/^#?\/?$/.test(location.hash)) {
      show();
    } else {
      location.hash = "#/";
    }
  }
});

addEventListener("signinneeded", (event) => {
  const isAsked = main.querySelector(".signin") !== null;
  if (!isAsked) {
    leaving.abort();
    const place = h("div.view");
    fill(main, place);
    showSignIn(place, token() ? /** @type {CustomEvent} */ (event).detail.message : "");
  }
});

offerSignOut();
show();
