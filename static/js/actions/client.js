// Asking the server for a preview, and for the deed. Refusals come back as sentences; nothing is guessed.

const TIMEOUT_MS = 15_000;

/** A refusal or a failure, in words for the operator; `status` is 0 where no answer came. */
export class ActionError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options, unanswered) {
  let response;
  try {
    response = await fetch(path, {
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
  );
}

/** What is true now, or would be done; `query` leaves out what is undefined. */
export function read(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given).toString();
  return ask(search ? `${path}?${search}` : path, {}, "The server is not responding. Nothing was changed. Try again.");
}

export const send = (path, body) =>
  ask(
    path,
    {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-CSRFToken": document.querySelector("#action-form [name=csrfmiddlewaretoken]").value,
      },
      body: JSON.stringify(body),
    },
    "The server did not respond, so it is unknown whether the action was applied. Refresh the preview to see the current state.",
  );
