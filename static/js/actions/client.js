// Asks the server for previews and actions. Refusals carry the server's message.

const TIMEOUT_MS = 15_000;
/** The page's own folder: all requests go below it, also behind a proxy with a path prefix. */
const ROOT = new URL(document.getElementById("page")?.dataset.root ?? "/", location.href);

/** A refusal or a failure, with a message for the operator; `status` is 0 where no answer came. */
export class ActionError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   * @param {boolean} loginRequired
   */
  constructor(message, status, loginRequired = false) {
    super(message);
    this.status = status;
    this.loginRequired = loginRequired;
  }
}

/**
 * @param {string} path relative to the page's root
 * @param {RequestInit} options
 * @param {string} unanswered the message where no answer came
 * @returns {Promise<any>}
 */
async function ask(path, options, unanswered) {
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      ...options,
      headers: { Accept: "application/json", ...options.headers },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ActionError(unanswered, 0);
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new ActionError(
    answer.error ?? `The server returned HTTP ${response.status} without an error message. Try again.`,
    response.status,
    answer.login_required === true,
  );
}

/**
 * The present state, or a preview; `query` leaves out what is undefined.
 * @param {string} path
 * @param {Record<string, any>} query
 */
export function read(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given).toString();
  return ask(search ? `${path}?${search}` : path, {}, "The server is not responding. Nothing was changed. Try again.");
}

/** @type {(path: string, body: object) => Promise<any>} */
export const send = (path, body) =>
  ask(
    path,
    {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-CSRFToken": csrfToken(),
      },
      body: JSON.stringify(body),
    },
    "The server did not respond, so it is unknown whether the action was applied. Refresh the preview to see the current state.",
  );

function csrfToken() {
  /** @type {HTMLInputElement | null} */
  const input = document.querySelector("#action-form [name=csrfmiddlewaretoken]");
  return input?.value ?? "";
}
