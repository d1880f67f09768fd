// A client of the TypeScript SDK: makes calls one after the other and prints a line of JSON for what came of each.
//
//     node client.mjs SDK URL TARGET ID '{"func": ..., "args": [...], "options": {...}}' ...
import "./node20.mjs";
import { describe } from "./errors.mjs";

const [sdk, url, target, id, ...calls] = process.argv.slice(2);
const { Resonate } = await import(sdk);
const resonate = new Resonate({ url, group: "ts-clients", logLevel: "error" });

for (const [index, call] of calls.entries()) {
  const { func, args, options } = JSON.parse(call);
  try {
    const value = await resonate.rpc(`${id}-${index}`, func, ...args, resonate.options({ target, ...options }));
    console.log(JSON.stringify({ value: value === undefined ? "undefined" : value }));
  } catch (error) {
    console.log(JSON.stringify({ error: describe(error) }));
  }
}
await resonate.stop();
process.exit(0);
