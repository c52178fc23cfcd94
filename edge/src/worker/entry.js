// Where requests come in: answers that are known go out at once, the others are wasm's.
// `wasm.js` is what worker-build makes; `cargo xtask edge` makes one file of both.

import Wasm from "../../build/wasm.js";

const recall = Wasm.prototype.recall();

function wasm(request, env, context) {
  return new Wasm(context, env).fetch(request);
}

export default {
  fetch(request, env, context) {
    return recall(request, env, context, wasm);
  },
  queue(batch, env, context) {
    return new Wasm(context, env).queue(batch);
  },
};
