// A worker that does nothing of its own: what the runtime costs. Sizes and fields stand above.
const index = new Uint8Array(INDEX_BYTES).fill(120);
const blob = new Uint8Array(BLOB_BYTES).fill(120);

export default {
  async fetch(request, env) {
    if (request.headers.get("if-none-match") !== null) {
      return new Response(null, { status: 304, headers: INDEX_FIELDS });
    }
    const { pathname } = new URL(request.url);
    if (pathname === "/index") return new Response(index, { headers: INDEX_FIELDS });
    if (pathname === "/blob") return new Response(blob, { headers: BLOB_FIELDS });
    const object = await env.BUCKET.get(pathname.slice("/bucket/".length));
    if (object === null) return new Response(null, { status: 404 });
    return new Response(object.body, { headers: BLOB_FIELDS });
  },
};
