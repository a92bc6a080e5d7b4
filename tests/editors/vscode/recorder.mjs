// Stands between the editor and the server, passes everything on, and writes down what was said.
//
// Usage: node recorder.mjs LOG COMMAND...
// LOG gets one JSON line a message: {"from": "client" | "server" | "recorder", "message": {...}}.
// After each answer about inline completion the server is asked, unseen by the editor, what it
// took; the line is {"from": "recorder", "timing": {...}}.
import { spawn } from "node:child_process";
import { appendFileSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";

// No longer while a file "no-probes" lies beside LOG.
// While a file "broken" lies beside LOG it ends at once, as a broken server does.
const [log, command, ...args] = process.argv.slice(2);
if (existsSync(join(dirname(log), "broken"))) process.exit(3);
const server = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
const note = (line) => appendFileSync(log, JSON.stringify(line) + "\n");
note({ from: "recorder", pid: server.pid });

function frame(message) {
  const body = Buffer.from(JSON.stringify(message));
  return Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]);
}

// Calls `receive(message, bytes)` for each whole message.
function reader(receive) {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const end = rest.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = Number(/content-length: *(\d+)/i.exec(rest.subarray(0, end).toString())[1]);
      if (rest.length < end + 4 + length) return;
      const bytes = rest.subarray(0, end + 4 + length);
      rest = rest.subarray(end + 4 + length);
      receive(JSON.parse(bytes.subarray(end + 4).toString()), bytes);
    }
  };
}

const asked = new Set();
process.stdin.on("data", reader((message, bytes) => {
  note({ from: "client", message });
  if (message.method === "textDocument/inlineCompletion") asked.add(message.id);
  server.stdin.write(bytes);
}));
let probes = 0;
server.stdout.on("data", reader((message, bytes) => {
  if (typeof message.id === "string" && message.id.startsWith("recorder-")) {
    for (const timing of message.result ?? []) note({ from: "recorder", timing });
    return;
  }
  note({ from: "server", message });
  process.stdout.write(bytes);
  if (message.method === undefined && asked.delete(message.id) && !existsSync(join(dirname(log), "no-probes"))) {
    probes += 1;
    server.stdin.write(frame({ jsonrpc: "2.0", id: `recorder-${probes}`, method: "keystate/lastTimings" }));
  }
}));
process.stdin.on("end", () => server.stdin.end());
server.stdin.on("error", () => {});
server.on("exit", (code) => process.exit(code ?? 1));
