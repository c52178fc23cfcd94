// The part of the worker that only JavaScript can do well: whatever would otherwise cross
// between wasm and the runtime many times for one request, and every body, which must not
// cross at all. Nothing is decided here.

const FIELDS = ["if-match", "if-none-match", "range", "if-range", "traceparent", "cf-connecting-ip"];

// What a request says, as one text: method, URL, then a line for each field, empty when the
// field is absent and beginning with "=" when it is not. No value can hold a line's end.
export function gather(request) {
  const headers = request.headers;
  let text = request.method + "\n" + request.url;
  for (const name of FIELDS) {
    const value = headers.get(name);
    text += value === null ? "\n" : "\n=" + value;
  }
  const encodings = accepted(request);
  return text + (encodings === null ? "\n" : "\n=" + encodings);
}

// What a client takes. The platform writes its own Accept-Encoding, and says beside it what
// the client sent. To read that is dear, and of use only where gzip is in question.
export function accepted(request) {
  const field = request.headers.get("accept-encoding");
  if (field === null || !/gzip|\*/i.test(field)) return field;
  return request.cf?.clientAcceptEncoding ?? field;
}

// A field of a request or an answer.
export function field(message, name) {
  return message.headers.get(name) ?? undefined;
}

// Header fields from a text of lines: name, value, name, value.
export function fields(text) {
  const headers = new Headers();
  const lines = text.split("\n");
  for (let at = 0; at + 1 < lines.length; at += 2) headers.append(lines[at], lines[at + 1]);
  return headers;
}

// An answer. `encoded`: the body is compressed already, as its fields say. The answer gets a
// copy of the fields, so those that are kept have the last trace until the next.
export function answer(status, headers, body, trace, encoded) {
  headers.set("traceparent", trace);
  return new Response(body, encoded ? { status, headers, encodeBody: "manual" } : { status, headers });
}

export function random(into) {
  crypto.getRandomValues(into);
}

// A variable or a binding; undefined where there is none.
export function binding(env, name) {
  return env[name];
}

async function within(timeoutMs, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Begins to read an object of a bucket, in the words of HTTP. `end` is one past the last
// byte; 0 asks for the whole. `tag` is that of the object already known, or empty.
export async function openBucket(bucket, key, start, end, tag, timeoutMs) {
  const options = {};
  if (end > 0) options.range = { offset: start, length: end - start };
  if (tag !== "") options.onlyIf = { etagDoesNotMatch: tag };
  const reading = bucket.get(key, options);
  let object;
  try {
    object = await within(timeoutMs, reading);
  } catch (error) {
    reading.then((late) => late?.body?.cancel(), () => {});
    throw error;
  }
  if (object === null) return { status: 404, length: -1, tag: "", body: undefined };
  if (!object.body) return { status: 304, length: -1, tag: object.etag, body: undefined };
  const length = end > 0 ? object.range.length : object.size;
  return { status: end > 0 ? 206 : 200, length, tag: object.etag, body: object.body };
}

function opened(response) {
  const length = response.headers.get("content-length");
  return {
    status: response.status,
    length: length !== null && /^[0-9]{1,15}$/.test(length) ? Number(length) : -1,
    tag: response.headers.get("etag") ?? "",
    body: response.body ?? undefined,
  };
}

// Fetches, and waits only so long for the answer to begin.
async function begin(url, init, timeoutMs) {
  const abort = new AbortController();
  const late = new Error(`no answer within ${timeoutMs} ms`);
  const timer = setTimeout(() => abort.abort(late), timeoutMs);
  try {
    return await fetch(url, { ...init, redirect: "manual", signal: abort.signal });
  } finally {
    clearTimeout(timer);
  }
}

// The same of a server. `fresh`: not from a cache on the way.
export async function openServer(url, start, end, tag, fresh, trace, timeoutMs) {
  const headers = { "accept-encoding": "identity", traceparent: trace };
  if (end > 0) headers.range = `bytes=${start}-${end - 1}`;
  if (tag !== "") headers["if-none-match"] = tag;
  return opened(await begin(url, fresh ? { headers, cache: "no-store" } : { headers }, timeoutMs));
}

// Reads a body to its end: its bytes, and their SHA-256.
export async function collect(body, timeoutMs) {
  const bytes = new Uint8Array(await within(timeoutMs, new Response(body).arrayBuffer()));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [bytes, digest];
}

// Lets a body go that nobody reads.
export function drop(body) {
  body.cancel().catch(() => {});
}

// A body of exactly this many bytes: one that ends sooner, or goes on, breaks off.
export function exact(body, length) {
  const stream = new FixedLengthStream(length);
  // The reader of the other end sees the error.
  body.pipeTo(stream.writable).catch(() => {});
  return stream.readable;
}

export function blob(bytes) {
  return new Blob([bytes]);
}

export async function gzip(blob) {
  return await new Response(blob.stream().pipeThrough(new CompressionStream("gzip"))).blob();
}

// The platform's cache, which all machines of a place share.
export async function readCache(url) {
  const response = await caches.default.match(url);
  return response === undefined ? undefined : opened(response);
}

export async function writeCache(url, bytes, headers) {
  await caches.default.put(url, new Response(bytes, { headers }));
}

export async function dropFromCache(url) {
  await caches.default.delete(url);
}

// Passes a request on. `undefined` when its body is longer than `limit`.
export async function forward(request, url, dropped, added, limit, timeoutMs) {
  const headers = new Headers(request.headers);
  for (const name of dropped.split("\n")) headers.delete(name);
  const lines = added.split("\n");
  for (let at = 0; at + 1 < lines.length; at += 2) headers.set(lines[at], lines[at + 1]);
  let body = request.body;
  let tooLong = false;
  // Of a body with a declared length no more than that is read.
  if (body !== null && !request.headers.has("content-length")) {
    let seen = 0;
    body = body.pipeThrough(new TransformStream({
      transform(piece, controller) {
        seen += piece.byteLength;
        if (seen > limit) {
          tooLong = true;
          controller.error(new Error("the body is too long"));
        } else {
          controller.enqueue(piece);
        }
      },
    }));
  }
  try {
    const response = await begin(url, { method: request.method, headers, body }, timeoutMs);
    if (!tooLong) return response;
    // The runtime ends a body that broke off as if it were whole, and the API has answered.
    response.body?.cancel().catch(() => {});
    return undefined;
  } catch (error) {
    if (tooLong) return undefined;
    throw error;
  }
}

// Passes an answer back.
export function passBack(response, dropped, trace) {
  const headers = new Headers(response.headers);
  for (const name of dropped.split("\n")) headers.delete(name);
  headers.set("traceparent", trace);
  return new Response(response.body, { status: response.status, headers });
}

// Asks for a status and nothing else.
export async function status(method, url, headers, body, timeoutMs) {
  const response = await begin(url, { method, headers, body, cache: "no-store" }, timeoutMs);
  await response.body?.cancel();
  return response.status;
}

export async function reachBucket(bucket, key, timeoutMs) {
  await within(timeoutMs, bucket.head(key));
}

export async function admits(limiter, key) {
  return (await limiter.limit({ key })).success;
}

export async function send(queue, json) {
  await queue.send(JSON.parse(json), { contentType: "json" });
}

// Reads a request's body, at most `limit` bytes of it; `undefined` when there are more.
export async function readBody(request, limit, timeoutMs) {
  if (Number(request.headers.get("content-length") ?? 0) > limit) return undefined;
  if (request.body === null) return new Uint8Array();
  const reader = request.body.getReader();
  const pieces = [];
  let length = 0;
  const all = async () => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      length += value.byteLength;
      if (length > limit) return false;
      pieces.push(value);
    }
  };
  if (!(await within(timeoutMs, all()))) {
    reader.cancel().catch(() => {});
    return undefined;
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

// A body that is written piece by piece.
export function pipe() {
  const { readable, writable } = new IdentityTransformStream();
  return [readable, writable.getWriter()];
}

export async function write(writer, piece) {
  await writer.write(piece);
}

export async function close(writer) {
  await writer.close();
}

export function breakOff(writer) {
  writer.abort(new Error("broken off")).catch(() => {});
}
