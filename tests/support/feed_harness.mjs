// Runs static/js/live/feed.js without a browser, in virtual time: a server that is up or down, a proxy that blocks
// websockets or not, a session that ends. Prints what the page was told, as JSON.

let now = 0;
/** @type {{ id: number, at: number, run: () => void }[]} */
let timers = [];
let ids = 0;
globalThis.setTimeout = (run, delay = 0) => {
  timers.push({ id: ++ids, at: now + delay, run });
  return ids;
};
globalThis.clearTimeout = (id) => {
  timers = timers.filter((timer) => timer.id !== id);
};
Date.now = () => now;
Math.random = () => 0.5;

const settled = () => new Promise((resolve) => setImmediate(resolve));

async function pass(seconds) {
  const end = now + seconds * 1000;
  await settled();
  for (;;) {
    const [next] = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at);
    if (!next) break;
    timers = timers.filter((timer) => timer !== next);
    now = Math.max(now, next.at);
    next.run();
    await settled();
  }
  now = end;
}

const world = { up: true, websockets: true, session: true };
let sequence = 0;
let polls = 0;
let opened = 0;
/** @type {any} */
let socket = null;

globalThis.location = new URL("http://host/streamsocial/");
globalThis.window = { addEventListener() {} };
globalThis.document = {
  hidden: false,
  addEventListener() {},
  getElementById: (id) => (id === "page" ? { dataset: { root: "/streamsocial/" } } : null),
};
globalThis.fetch = async (url) => {
  if (String(url) !== "http://host/streamsocial/api/snapshot/") throw new Error(`asked for ${url}`);
  polls += 1;
  if (!world.up) throw new Error("refused");
  if (!world.session) {
    return { ok: false, status: 403, json: async () => ({ error: "Log in first.", login_required: true }) };
  }
  sequence += 1;
  return { ok: true, status: 200, json: async () => ({ sequence }) };
};
globalThis.WebSocket = class {
  constructor() {
    opened += 1;
    socket = this;
    setTimeout(() => {
      if (!world.up || !world.websockets) this.onclose({ code: 1006 });
      else {
        this.onopen();
        this.push();
      }
    }, 10);
  }
  push() {
    sequence += 1;
    this.onmessage({ data: JSON.stringify({ sequence }) });
  }
  send() {}
  close() {}
};

const { Feed } = await import("../../static/js/live/feed.js");
const told = [];
let last = "";
const shown = [];
const feed = new Feed(
  "/streamsocial/ws/dashboard/",
  (snapshot) => shown.push(snapshot.sequence),
  ({ kind }) => {
    if (kind !== last) told.push(kind);
    last = kind;
  },
);
const steps = [];
for (const [seconds, change] of JSON.parse(process.argv[2])) {
  Object.assign(world, change);
  if (change.websockets === false || change.up === false) socket?.onclose({ code: 1006 });
  const before = { polls, opened, shown: shown.length };
  told.length = 0;
  if (!opened) feed.connect();
  await pass(seconds);
  steps.push({
    told: [...told],
    polls: polls - before.polls,
    sockets: opened - before.opened,
    shown: shown.length - before.shown,
  });
}
console.log(JSON.stringify(steps));
