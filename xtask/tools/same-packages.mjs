// Whether two lock files install the same packages here: `node same-packages.mjs OURS THEIRS`.
// They may differ in optional packages for other systems, which npm adds to a lock and leaves out
// of it as its registry happens to offer them. Prints each other difference.

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

const [ours, theirs] = process.argv.slice(2).map((path) => JSON.parse(readFileSync(path, "utf8")));
const elsewhere = (entry) =>
  entry?.optional === true && entry.os !== undefined && !entry.os.includes(process.platform);

const differences = [];
for (const part of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
  if (part !== "packages" && !isDeepStrictEqual(ours[part], theirs[part])) differences.push(part);
}
const names = new Set([...Object.keys(ours.packages), ...Object.keys(theirs.packages)]);
for (const name of names) {
  const [one, other] = [ours.packages[name], theirs.packages[name]];
  const left_out = one === undefined || other === undefined;
  if (left_out && elsewhere(one ?? other)) continue;
  if (!isDeepStrictEqual(one, other)) differences.push(name || "(root)");
}
for (const difference of differences) console.error(`differs: ${difference}`);
process.exitCode = differences.length === 0 ? 0 : 1;
