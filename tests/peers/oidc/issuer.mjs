// An issuer of tokens that nobody here wrote: npm's `oidc-provider`, with one client, which gets
// JWT access tokens by its own credentials (RFC 6749, section 4.4) for the resource that it names
// (RFC 8707).
//
//   MODUNEST_NODE_MODULES=DIR node issuer.mjs CONFIGURATION
//
// {
//   "port": 0
//   "issuer": URL          what its tokens name (default: where it listens)
//   "key": "one"           the name of its key, which it makes at its start
//   "alg": "ES256"         what it signs by
//   "client": {"id", "secret"}
//   "resources": {URL: {"audience", "scope", "accessTokenTTL", "secret"}}
//                          with "secret", tokens are HS256, by the bytes of its public key: "pem",
//                          "der" or "jwk"
// }
//
// Prints {"ready": URL} as one line when it answers, and ends when standard input is closed.

import { createPublicKey } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const load = createRequire(join(resolve(process.env.MODUNEST_NODE_MODULES), "..", "x.js"));
const modules = ["oidc-provider", "jose"].map((name) => import(pathToFileURL(load.resolve(name))));
const [{ Provider, errors }, { exportJWK, generateKeyPair }] = await Promise.all(modules);

const config = JSON.parse(process.argv[2]);
const alg = config.alg ?? "ES256";
const { privateKey } = await generateKeyPair(alg, { extractable: true });
const jwk = { ...await exportJWK(privateKey), kid: config.key, use: "sig", alg };

function publicBytes(form) {
  const key = createPublicKey({ key: jwk, format: "jwk" });
  if (form === "jwk") return Buffer.from(JSON.stringify(key.export({ format: "jwk" })));
  return Buffer.from(key.export({ type: "spki", format: form }));
}

function resourceServer(indicator) {
  const resource = config.resources[indicator];
  if (resource === undefined) throw new errors.InvalidTarget();
  const { secret, ...rest } = resource;
  const sign = secret === undefined
    ? { alg, kid: config.key }
    : { alg: "HS256", key: publicBytes(secret), kid: config.key };
  return { ...rest, accessTokenFormat: "jwt", jwt: { sign } };
}

const server = createServer();
await new Promise((listening) => server.listen(config.port ?? 0, "127.0.0.1", listening));
const ready = `http://127.0.0.1:${server.address().port}`;
const scopes = Object.values(config.resources).flatMap(({ scope }) => scope.split(" "));
const provider = new Provider(config.issuer ?? ready, {
  clients: [{
    client_id: config.client.id,
    client_secret: config.client.secret,
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: alg,
  }],
  enabledJWA: { idTokenSigningAlgValues: [alg] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: { enabled: true, getResourceServerInfo: (_, name) => resourceServer(name) },
  },
  jwks: { keys: [jwk] },
  scopes: [...new Set(scopes)],
});
server.on("request", provider.callback());
process.stdout.write(JSON.stringify({ ready }) + "\n");
process.stdin.resume().on("close", () => process.exit());
