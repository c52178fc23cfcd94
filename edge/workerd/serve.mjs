// Runs the built worker in the real workerd through miniflare's API: R2, queue, cache and rate
// limits are miniflare's, on this machine.
//
//   node serve.mjs [--config FILE]        the configuration is FILE, or standard input's first line
//
// {
//   "worker": DIR                 index.js and index_bg.wasm
//   "modules": DIR                node_modules with miniflare (default: $MODUNEST_NODE_MODULES)
//   "host": "127.0.0.1", "port": 0
//   "vars": {}, "secrets": {}     text bindings
//   "r2Folder": DIR               keeps the bucket between runs (default: a folder that goes)
//   "seed": DIR                   files put into the bucket under their relative paths
//   "queue": {"maxBatchSize", "maxBatchTimeout", "maxRetries", "retryDelay", "deadLetterQueue"}
//                                 false: no queue is bound
//   "limits": {"READ_LIMIT": {"limit", "period"}, "WRITE_LIMIT": {...}}   default: none are bound
//   "direct": false               true: a second port that leads to the worker itself, past
//                                 miniflare's own worker, which adds its time to each request
//   "control": false              true: objects of the bucket can be put and deleted
//   "verbose": false              true: miniflare's own log on standard error
// }
//
// Prints {"ready": URL, "direct": URL, "control": URL} as one line when it answers. "ready" is
// behind miniflare's imitation of the network's front, which names the client's address and
// compresses texts by its own rules, parts of them too; "direct" is the worker itself. Ends on SIGTERM, and when
// standard input is closed (with --config too, unless it is a terminal or /dev/null).
// The control endpoint: PUT, DELETE and GET /KEY; GET /?prefix=P lists keys.

import { createServer } from "node:http";
import { readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, relative, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";

const BUCKET = "modunest-public";
const QUEUE = "modunest-downloads";
const DEAD_QUEUE = "modunest-downloads-dead";
// As in wrangler.toml.
const COMPATIBILITY_DATE = "2026-11-01";
// Larger than any archive that a test puts.
const CONTROL_BODY_MAX_BYTES = 64 * 1024 * 1024;

function fail(message) {
  process.stderr.write(`serve.mjs: ${message}\n`);
  process.exit(1);
}

// Standard input: its first line, and a promise of its end.
function input() {
  let text = "";
  let ended;
  const end = new Promise((done) => { ended = done; });
  const line = new Promise((done) => {
    process.stdin.setEncoding("utf8");
    process.stdin.on("data", (piece) => {
      text += piece;
      const at = text.indexOf("\n");
      if (at >= 0) done(text.slice(0, at));
    });
    process.stdin.on("end", () => { done(text); ended(); });
    process.stdin.on("error", () => { done(text); ended(); });
  });
  return { line, end };
}

async function configuration() {
  const at = process.argv.indexOf("--config");
  if (at >= 0) {
    const text = await readFile(process.argv[at + 1] ?? fail("--config takes a file"), "utf8");
    // /dev/null and terminals end nothing.
    const { end } = process.stdin.isTTY ? { end: new Promise(() => {}) } : input();
    const early = await Promise.race([end.then(() => true), new Promise((d) => setTimeout(d, 50))]);
    return { config: JSON.parse(text), end: early ? new Promise(() => {}) : end };
  }
  const { line, end } = input();
  const text = await line;
  return { config: JSON.parse(text), end };
}

async function* filesBelow(folder) {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

async function seed(bucket, folder) {
  for await (const path of filesBelow(folder)) {
    await bucket.put(relative(folder, path).split(sep).join("/"), await readFile(path));
  }
}

async function bodyOf(request) {
  const pieces = [];
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
    if (length > CONTROL_BODY_MAX_BYTES) throw new Error("the body is too large");
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function control(bucket, host) {
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://control");
    const key = decodeURIComponent(url.pathname.slice(1));
    try {
      if (request.method === "PUT") {
        await bucket.put(key, await bodyOf(request));
        response.writeHead(204).end();
      } else if (request.method === "DELETE") {
        await bucket.delete(key);
        response.writeHead(204).end();
      } else if (request.method === "GET" && key === "") {
        const found = await bucket.list({ prefix: url.searchParams.get("prefix") ?? "" });
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify(found.objects.map((object) => object.key)));
      } else if (request.method === "GET") {
        const object = await bucket.get(key);
        if (object === null) response.writeHead(404).end();
        else response.writeHead(200).end(Buffer.from(await object.arrayBuffer()));
      } else {
        response.writeHead(405).end();
      }
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  });
  await new Promise((listening) => server.listen(0, host, listening));
  return { server, url: `http://${host}:${server.address().port}/` };
}

const { config, end } = await configuration();
if (typeof config.worker !== "string") fail("\"worker\" is the folder of the built worker");
const modules = config.modules ?? process.env.MODUNEST_NODE_MODULES;
if (!modules) fail("\"modules\" or MODUNEST_NODE_MODULES names the folder with miniflare");
const load = createRequire(join(resolve(modules), "..", "x.js"));
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } =
  await import(pathToFileURL(load.resolve("miniflare")));

const root = resolve(config.worker) + sep;
const host = config.host ?? "127.0.0.1";
const { deadLetterQueue, ...queue } = config.queue === false ? {} : config.queue ?? {};
const queues = config.queue === false ? {} : {
  queueProducers: { DOWNLOADS: { queueName: QUEUE } },
  queueConsumers: {
    [QUEUE]: {
      maxBatchSize: 100, maxBatchTimeout: 1, maxRetries: 10, retryDelay: 1,
      deadLetterQueue: deadLetterQueue ?? DEAD_QUEUE, ...queue,
    },
  },
};
const ratelimits = Object.fromEntries(
  Object.entries(config.limits ?? {}).map(([name, simple]) => [name, { namespace_id: name, simple }]),
);
const miniflare = new Miniflare(convertV4MiniflareOptions({
  host,
  port: config.port ?? 0,
  cf: false,
  log: new Log(config.verbose ? LogLevel.DEBUG : LogLevel.WARN),
  logRequests: false,
  // Standard output holds one line of ours and nothing else.
  handleStructuredLogs: ({ message }) => process.stderr.write(message + "\n"),
  ...(config.r2Folder ? { resourcePersistencePath: resolve(config.r2Folder) } : {}),
  workers: [{
    name: "modunest-edge",
    modulesRoot: root,
    modules: [
      { type: "ESModule", path: root + "index.js" },
      { type: "CompiledWasm", path: root + "index_bg.wasm" },
    ],
    compatibilityDate: COMPATIBILITY_DATE,
    unsafeDirectSockets: [{ host, port: 0 }],
    bindings: { ...config.vars, ...config.secrets },
    r2Buckets: { BUCKET },
    ...queues,
    ...(Object.keys(ratelimits).length > 0 ? { ratelimits } : {}),
  }],
}));

let ending = false;
async function stop(code) {
  if (ending) return;
  ending = true;
  await miniflare.dispose();
  process.exit(code);
}
process.on("SIGTERM", () => stop(0));
process.on("SIGINT", () => stop(0));

const url = await miniflare.ready;
const bucket = await miniflare.getR2Bucket("BUCKET", "modunest-edge");
if (config.seed) await seed(bucket, resolve(config.seed));
const direct = await miniflare.unsafeGetDirectURL("modunest-edge");
const ready = { ready: url.href, direct: direct.href };
if (config.control) ready.control = (await control(bucket, host)).url;
process.stdout.write(JSON.stringify(ready) + "\n");
end.then(() => stop(0));
