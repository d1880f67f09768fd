// A worker of the TypeScript SDK, with the functions that Python calls and workflows that call Python.
//
//     node worker.mjs SDK URL GROUP
//
// It says "started" once calls reach it, and works until its standard input ends.
import { setTimeout as delay } from "node:timers/promises";
import "./node20.mjs";
import { describe } from "./errors.mjs";

const [sdk, url, group] = process.argv.slice(2);
const { Resonate } = await import(sdk);
const resonate = new Resonate({ url, group, logLevel: "error" });

resonate.register("ts_double", function* (_ctx, n) {
  return n * 2;
});
resonate.register("ts_sum", function* (_ctx, numbers) {
  return numbers.reduce((a, b) => a + b, 0);
});
resonate.register("ts_pair", function* (_ctx, text, n) {
  return [text, n];
});
resonate.register("ts_nothing", function* () {
  return undefined;
});
resonate.register("ts_null", function* (_ctx, value) {
  return value === null ? null : "not null";
});
resonate.register("ts_infinity", function* (_ctx, negative) {
  return negative ? -Infinity : Infinity;
});
resonate.register("ts_fail", function* (_ctx, message) {
  throw new TypeError(message);
});
resonate.register("ts_fail_twice", function* (_ctx, one, other) {
  throw new AggregateError([new RangeError(one), new TypeError(other)], "both");
});
resonate.register("ts_throw", function* (_ctx, value) {
  throw value;
});
for (const version of [1, 2]) {
  const which = function* () {
    return version;
  };
  resonate.register("ts_version", which, { version });
}

// A workflow: what the functions of a peer (a group, whose functions begin with its name) gave or failed with.
resonate.register("ts_flow", function* (ctx, peer) {
  const calls = { double: [21], sum: [[1, 2, 3]], pair: ["a", 1], nothing: [], fail: ["boom"] };
  const outcomes = { local: yield* ctx.run(function* (_ctx, n) { return n + 1; }, 1) };
  yield* ctx.sleep(10);
  for (const [name, args] of Object.entries(calls)) {
    try {
      const value = yield* ctx.rpc(`${peer}_${name}`, ...args, ctx.options({ target: peer }));
      outcomes[name] = value === undefined ? "undefined" : value;
    } catch (error) {
      outcomes[name] = describe(error);
    }
  }
  return outcomes;
});

async function stop() {
  await resonate.stop();
  process.exit(0);
}
process.stdin.on("end", stop).resume();

// A call that comes before the stream of messages is open is sent again only after half a minute: call anew until one
// is answered.
async function reached(n) {
  const call = resonate.rpc(`${group}-reached-${n}`, "ts_double", n, resonate.options({ target: group }));
  return Promise.race([call.then(() => true), delay(500, false)]);
}
for (let n = 0; !(await reached(n)); n++);
console.log("started");
