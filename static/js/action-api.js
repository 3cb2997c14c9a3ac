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
    response = await fetch(path, { ...options, headers: { Accept: "application/json", ...options.headers }, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new ActionError(unanswered, 0);
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new ActionError(answer.error ?? `The server answered ${response.status} without saying why. Try again.`, response.status);
}

/** `to` only for what moves to a place of the operator's choice. */
export const preview = (id, kind, to) =>
  ask(`/api/partitions/${id}/preview/${kind}/${to === undefined ? "" : `?to=${encodeURIComponent(to)}`}`, {}, "The server does not answer, so nothing can be previewed. Nothing was changed; try again.");

export const apply = (id, kind, reason, seen, to) =>
  ask(
    `/api/partitions/${id}/${kind}/`,
    {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": document.querySelector("#action-form [name=csrfmiddlewaretoken]").value },
      body: JSON.stringify({ reason, seen, to }),
    },
    "The server did not answer, so it is not known whether this was applied. Look again: the preview shows what is true now.",
  );
