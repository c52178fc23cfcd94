// Answers that wasm made, given again by JavaScript alone: what is asked for most is the same
// few parts of the index, and to enter wasm for them takes longer than the answer.
//
// Nothing is decided here. Wasm hands over an answer when it has given it, and takes it back
// when it forgets the bytes. Here the identical question is recognised: the path; GET for the
// whole, GET or HEAD and a tag that the reader has for a 304; none of the fields that wasm looks
// at besides; and a text of Accept-Encoding that wasm has judged. Whatever is not surely that
// question is asked of wasm.

import { accepted } from "./glue.js";

// Texts of Accept-Encoding that are remembered: clients send some ten, and others anything.
const TEXTS_MAX = 64;
// Of so many questions for the same, one is asked of wasm, so that it knows what is in use.
const QUESTIONS_UNTIL_WASM = 64;

// The forms of an object; as in cache.rs.
const GZIP = 1;
const ONLY = 2;

// By path: the tag, by form the answers with the whole and the 304s, the number of questions.
const answers = new Map();
// By the text of Accept-Encoding, null when there is none: whether gzip is taken.
const judged = new Map();

// Takes over an answer: its blob, undefined for a 304, and its fields, to which only
// `traceparent` is added.
export function keep(path, form, blob, headers) {
  let known = answers.get(path);
  if (known === undefined) {
    const tag = headers.get("etag").replace("W/", "");
    answers.set(path, known = { tag, whole: [], unchanged: [], questions: 0 });
  }
  if (blob === undefined) {
    known.unchanged[form] = { init: { status: 304, headers } };
  } else {
    const init = form === GZIP ? { headers, encodeBody: "manual" } : { headers };
    known.whole[form] = { blob, init };
  }
}

export function forget(path) {
  answers.delete(path);
}

export function forgetAll() {
  answers.clear();
  judged.clear();
}

// Takes over what wasm thinks of an Accept-Encoding.
export function judge(text, gzip) {
  if (judged.size >= TEXTS_MAX) judged.clear();
  judged.set(text ?? null, gzip);
}

// Hexadecimal digits of random bytes, in records of a trace (16 bytes) and a step (8 bytes),
// neither of which may be zero.
const RECORDS = 64;
const TRACE_BYTES = 16;
const RECORD_BYTES = 24;
const pool = new Uint8Array(RECORDS * RECORD_BYTES);
let digits = "";
let used = RECORDS;

// As wasm does it: a step further in the trace of `before`, or a new trace. `undefined` where
// `before` is not of the usual form.
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

function step(before) {
  if (before !== null && !TRACEPARENT.test(before)) return undefined;
  if (used === RECORDS) {
    crypto.getRandomValues(pool);
    for (let at = 0; at < pool.length; at += RECORD_BYTES) {
      pool[at] |= 1;
      pool[at + TRACE_BYTES] |= 1;
    }
    digits = "";
    for (const byte of pool) digits += (byte < 16 ? "0" : "") + byte.toString(16);
    used = 0;
  }
  const at = 2 * RECORD_BYTES * used++;
  const span = digits.slice(at + 2 * TRACE_BYTES, at + 2 * RECORD_BYTES);
  if (before === null) return "00-" + digits.slice(at, at + 2 * TRACE_BYTES) + "-" + span + "-01";
  const sampled = parseInt(before[54], 16) & 1;
  return before.slice(0, 36) + span + (sampled ? "-01" : "-00");
}

// Tags with commas between them (RFC 9110, section 13.1.2).
const TAGS = /^(?:W\/)?"[^"]*"(?:[ \t]*,[ \t]*(?:W\/)?"[^"]*")*$/;

// Whether an If-None-Match surely names a tag, weak or not: in a list of tags, what stands
// between two quotation marks and is no tag is a comma.
function names(condition, tag) {
  return condition === tag || condition === "*" || (TAGS.test(condition) && condition.includes(tag));
}

function give({ blob, init }, trace) {
  // The answer gets a copy of the fields.
  init.headers.set("traceparent", trace);
  return new Response(blob?.stream(), init);
}

// The answer that this question was given before; undefined where that is not sure.
function remembered(known, request) {
  const { method, headers } = request;
  if (method !== "GET" && method !== "HEAD") return undefined;
  if (
    headers.get("range") !== null || headers.get("if-match") !== null ||
    headers.get("if-range") !== null
  ) return undefined;
  const condition = headers.get("if-none-match");
  if (condition === null ? method === "HEAD" : !names(condition, known.tag)) return undefined;
  const forms = condition === null ? known.whole : known.unchanged;
  if (forms[ONLY] !== undefined) return forms[ONLY];
  const gzip = judged.get(accepted(request));
  return gzip === undefined ? undefined : forms[Number(gzip)];
}

// The answer to a request; `wasm` answers what is not known here.
export function recall(request, env, context, wasm) {
  const url = request.url;
  // A host has at least one character: the path begins behind "http://h".
  const known = answers.get(url.slice(url.indexOf("/", 8)));
  if (known === undefined) return wasm(request, env, context);
  const answer = remembered(known, request);
  if (answer === undefined) return wasm(request, env, context);
  const headers = request.headers;
  const trace = step(headers.get("traceparent"));
  known.questions = (known.questions + 1) % QUESTIONS_UNTIL_WASM;
  if (trace === undefined || known.questions === 0) return wasm(request, env, context);
  const limit = env.READ_LIMIT;
  const client = limit ? headers.get("cf-connecting-ip") : null;
  if (client === null) return give(answer, trace);
  // Wasm refuses, and says so when the limit cannot be asked.
  return limit.limit({ key: client }).then(
    ({ success }) => (success ? give(answer, trace) : wasm(request, env, context)),
    () => wasm(request, env, context),
  );
}

// For entry.js, which imports what is made of wasm and has no other way to this module than
// through it.
export function entry() {
  return recall;
}
