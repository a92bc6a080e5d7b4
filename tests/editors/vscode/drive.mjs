// Takes a real VS Code through the extension's behaviour, step by step.
//
// Usage: node drive.mjs INSTALLED VSIX SERVER ARTEFACTS
// INSTALLED is what install.sh made, SERVER the `keystate` command. ARTEFACTS gets screenshots,
// what editor and server said (recording.jsonl), the extension's log, and outcomes.json: a list of
// {"name", "ms", "error"}, error null where a step went well.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Editor, until } from "./editor.mjs";

const [installed, vsix, server, artefacts] = process.argv.slice(2).map((path) => resolve(path));
const here = dirname(fileURLToPath(import.meta.url));
const sample = readFileSync(join(here, "../../../perf/samples/job_queue.py"), "utf8");

/** What the server needs is here already; installing it again would download a lot. */
const python = join(dirname(server), "python");
const packages = execFileSync(python, ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], { encoding: "utf8" }).trim();

const home = mkdtempSync(join(tmpdir(), "keystate-vscode-"));
const serverCommand = [process.execPath, join(here, "recorder.mjs"), join(home, "recording.jsonl"), server, "serve"];
const editor = new Editor({
  installed,
  home,
  artefacts,
  vsix,
  variables: { PYTHONPATH: packages },
  settings: {
    "keystate.serverCommand": serverCommand,
    // What appears must not depend on how fast this machine is, nor on how sure the model is.
    "keystate.deadlineMs": 30000,
    "keystate.minConfidence": 0,
    "keystate.saveStates": false,
    "keystate.shareEngine": "never",
    "editor.wordBasedSuggestions": "off",
    "files.autoSave": "off",
    "editor.minimap.enabled": false,
    "workbench.startupEditor": "none",
    "chat.commandCenter.enabled": false,
    "extensions.ignoreRecommendations": true,
    "git.openRepositoryInParentFolders": "never",
  },
});

/** A method is being written into the sample: what stands before and after the cursor. */
const cut = sample.indexOf("    def close(self)");
const before = `${sample.slice(0, cut)}    def retry(self, job: Job) -> None:\n        `;
const after = `\n\n${sample.slice(cut)}`;
const line = before.split("\n").length;

let n = 0;
/**
 * Open a copy of the sample with the cursor in the method's first line, and type there.
 *
 * A request made by hand waits until the server has read the file, so that what appears by itself
 * afterwards does not depend on how far it has come.
 */
async function write(typed = "", name = `job_queue_${(n += 1)}.py`) {
  // Suggestions copy from other open files too.
  await editor.closeAll();
  await editor.open(name, before + after);
  await editor.goToLine(line);
  await askByHand(name);
  if (typed !== "") await editor.type(typed);
  return name;
}

/** Ask for a suggestion where the cursor stands; gives the answer. */
async function askByHand(name) {
  for (let i = 0; i < 5; i += 1) {
    const since = nRequests();
    await editor.press("Alt+\\");
    const isByHand = ({ params }) => params.context.triggerKind === 1;
    const { id } = await until("a request by hand", () => requestsFor(name, since).find(isByHand));
    const answers = ({ params, id: to }) => to === id && params.textDocument.uri.endsWith(`/${name}`);
    const answer = await until("its answer", () => editor.answers().findLast(answers), 60_000);
    // None where VS Code has asked once more, by itself, meanwhile.
    if (answer.result) return answer;
  }
  throw new Error("no answer to a request by hand");
}

/** Where the cursor stands once the method says this. */
function positionAfter(method) {
  const lines = (before + method).split("\n");
  return { line: lines.length - 1, character: lines.at(-1).length };
}

/** Whether an answer has something for the method as it stands. */
function isAbout(name, method) {
  const at = positionAfter(method);
  return ({ params: { position, textDocument }, items }) =>
    items?.[0] && position.line === at.line && position.character === at.character && textDocument.uri.endsWith(`/${name}`);
}

/** Wait until what is seen is what was answered about the method as it stands; gives that answer, with `ghost`. */
async function settled(name, method) {
  const answers = isAbout(name, method);
  return until("ghost text for what stands there", async () => {
    const ghost = await editor.ghost();
    const answer = editor.answers().findLast(answers);
    return ghost !== "" && answer?.items[0].insertText.trimEnd() === ghost && { ...answer, ghost };
  });
}

/** Hold that the method says this now, and that everything around it is as it was. */
async function says(name, method) {
  const wanted = before + method + after;
  const text = await editor.savedText(name, (saved) => saved === wanted);
  assert.equal(text.slice(before.length, text.length - after.length), method);
  assert.equal(text, wanted, "text around the cursor has changed");
}

/** Requests for a file that were made since a count of all of them. */
function requestsFor(name, since = 0) {
  return editor.sent("textDocument/inlineCompletion").slice(since).filter(({ params }) => params.textDocument.uri.endsWith(`/${name}`));
}

/** Those about what is written in the method's first line behind this; one about the line before may come late. */
function requestsBehind(name, method) {
  const { character } = positionAfter(method);
  return requestsFor(name).filter(({ params }) => params.position.character > character);
}
const nRequests = () => editor.sent("textDocument/inlineCompletion").length;

function isBalanced(text) {
  const pairs = { ")": "(", "]": "[", "}": "{" };
  const open = [];
  for (const character of text.replace(/"[^"]*"/g, '""')) {
    if ("([{".includes(character)) open.push(character);
    if (character in pairs && open.pop() !== pairs[character]) return false;
  }
  return open.length === 0;
}

/** Open a notebook with one cell, and put the cursor at the cell's end. */
async function openNotebook(name) {
  const source = ["import sys\n", "\n", "def main():\n", "    print(sys.argv)\n"];
  const cell = { cell_type: "code", execution_count: null, id: "a", metadata: {}, outputs: [], source };
  const metadata = { language_info: { name: "python" } };
  writeFileSync(join(editor.workspace, name), JSON.stringify({ cells: [cell], metadata, nbformat: 4, nbformat_minor: 5 }));
  await editor.choose(name);
  await editor.page.locator(".notebook-editor .cell .view-lines").first().click();
  await editor.press("Control+End");
}

const steps = {
  async "the extension installs and the server becomes ready"() {
    assert.match(editor.installExtension(), /was successfully installed/);
    await editor.start();
    await editor.open("job_queue.py", sample);
    await editor.statusSays(/keystate: ready/, 120_000);
    const [{ params }] = editor.sent("initialize");
    assert.equal(params.initializationOptions.minConfidence, 0);
    assert.equal("serverCommand" in params.initializationOptions, false);
    assert.equal(params.initializationOptions.shareEngine, "never");
    assert.equal(params.capabilities.experimental.keystateStatus, true);
    assert.deepEqual(editor.sent("window/showMessage", "server"), []);
  },

  async "ghost text appears while typing"() {
    const name = await write("if job");
    const { params } = await settled(name, "if job");
    assert.equal(params.context.triggerKind, 2);
    await editor.screenshot("ghost-text");
  },

  async "Tab inserts it, and undo restores"() {
    const name = await write("if job");
    const { ghost } = await settled(name, "if job");
    await editor.press("Tab");
    await editor.screenshot("accepted");
    await says(name, `if job${ghost}`);
    await editor.press("Control+Z");
    await says(name, "if job");
  },

  async "a word is accepted, then the rest"() {
    const name = await write("if job");
    const { ghost, items } = await settled(name, "if job");
    await editor.press("Control+ArrowRight");
    await until("less ghost text", async () => (await editor.ghost()).length < ghost.length);
    await editor.screenshot("word-accepted");
    const rest = await until("the rest", async () => {
      const seen = await editor.ghost();
      return seen !== "" && ghost.endsWith(seen) && seen;
    });
    const word = ghost.slice(0, ghost.length - rest.length);
    await says(name, `if job${word}`);
    if (word.length > 1) {
      const told = await until("didPartiallyAcceptCompletion", () => editor.sent("textDocument/didPartiallyAcceptCompletion").at(-1));
      assert.deepEqual(told.params, { item: items[0], acceptedLength: word.length });
    }
    assert.ok(editor.sent("textDocument/didShowCompletion").some(({ params }) => params.item.insertText === items[0].insertText));
    await editor.press("Tab");
    await says(name, `if job${ghost}`);
  },

  async "a line is accepted"() {
    const name = await write();
    const { items } = await settled(name, "");
    const [first, ...others] = items[0].insertText.split("\n");
    await editor.screenshot("lines");
    await editor.press("Control+ArrowDown");
    await says(name, others.length === 0 ? first : `${first}\n`);
  },

  async "alternatives are looked through"() {
    let shown = [];
    // What the model has more than one opinion on is its own business; one of these will do.
    for (const typed of ["", "if ", "return ", "self."]) {
      const name = await write(typed);
      // What is about to appear would take the keys.
      await editor.ghostShown(3000).catch(() => {});
      await editor.press("Escape");
      const { items } = await askByHand(name);
      shown = items.map(({ insertText }) => insertText.trimEnd());
      if (shown.length > 1) break;
    }
    assert.ok(shown.length > 1, "no alternatives");
    await editor.ghostShown();
    await editor.press("Alt+]");
    await until("the next", async () => (await editor.ghost()) === shown[1]);
    await editor.press("Alt+[");
    await until("the first again", async () => (await editor.ghost()) === shown[0]);
  },

  async "typing along keeps the rest"() {
    const name = await write("if job");
    let ghost = await editor.ghostShown();
    const all = `if job${ghost}`;
    let method = "if job";
    for (let i = 0; i < 3; i += 1) {
      await editor.type(ghost[0]);
      method += ghost[0];
      ghost = ghost.slice(1);
      await until("the rest", async () => (await editor.ghost()) === ghost);
      // VS Code may ask about the text before the key once more, even when the key is pressed.
      const answers = isAbout(name, method);
      const isAboutRest = (answer) => answer.timing && answers(answer);
      const answer = await until("an answer about the rest, and what it took", () => editor.answers().findLast(isAboutRest));
      assert.equal(answer.items[0].insertText.trimEnd(), ghost);
      assert.equal(answer.timing.passes.model, 0, "the model ran");
      assert.equal(await editor.ghost(), ghost);
    }
    await editor.screenshot("typed-along");
    await editor.press("Tab");
    await says(name, all);
  },

  async "typing something else drops it"() {
    const name = await write("if job");
    const { ghost } = await settled(name, "if job");
    await editor.type("~");
    await until("the old ghost text is gone", async () => !(await editor.ghost()).startsWith(ghost.slice(0, 4)));
  },

  async "two suggestions in one line, and no doubled bracket"() {
    const name = await write('logger.info("added jo');
    // The editor has closed quote and bracket.
    const { ghost: first } = await settled(name, 'logger.info("added jo');
    await editor.press("Tab");
    await says(name, `logger.info("added jo${first}")`);
    await editor.type('", cursor.la');
    const { ghost: second } = await settled(name, `logger.info("added jo${first}", cursor.la`);
    await editor.screenshot("second-in-line");
    await editor.press("Tab");
    const all = `logger.info("added jo${first}", cursor.la${second})`;
    await says(name, all);
    assert.ok(isBalanced(all), all);
    await editor.screenshot("two-in-line");
    await editor.press("Control+Z");
    await says(name, `logger.info("added jo${first}", cursor.la)`);
  },

  async "a suggestion is made on demand"() {
    const name = await write("if job");
    await editor.ghostShown();
    await editor.press("Escape");
    await editor.ghostGone();
    const { items } = await askByHand(name);
    await until("what was answered", async () => (await editor.ghost()) === items[0].insertText.trimEnd());
  },

  async "the server is told where the cursor goes"() {
    await write();
    await editor.press("Escape");
    await editor.goToLine(30);
    const told = await until("cursorMoved", () => editor.sent("keystate/cursorMoved").find(({ params }) => params.position.line === 29));
    assert.match(told.params.textDocument.uri, /job_queue_\d+\.py$/);
  },

  async "settings take effect"() {
    const name = await write("if job");
    await editor.ghostShown();
    editor.changeSettings({ "keystate.enabled": false });
    await editor.statusSays(/off: turned off/);
    await editor.type("x");
    await editor.ghostGone();
    await says(name, "if jobx");
    assert.deepEqual(requestsBehind(name, "if job"), []);
    editor.changeSettings({ "keystate.maxTokens": 2 });
    const tells = ({ from, message }) =>
      from === "client" &&
      (message.params?.initializationOptions?.maxTokens === 2 || message.params?.settings?.keystate?.maxTokens === 2);
    await until("the server hears of maxTokens", () => editor.recorded().some(tells));
    await editor.statusSays(/keystate: ready/, 120_000);
    const short = await write("if job");
    const isShort = ({ params, timing }) => timing?.tokens && params.textDocument.uri.endsWith(`/${short}`);
    const { timing } = await until("an answer's tokens", () => editor.answers().findLast(isShort));
    assert.ok(timing.tokens.generated <= 2, `${timing.tokens.generated} tokens`);
    editor.changeSettings({});
    await until("the server hears of it", () => !tells(editor.recorded().findLast(({ message }) => message?.params?.initializationOptions ?? message?.params?.settings)));
    await editor.statusSays(/keystate: ready/, 120_000);
  },

  async "the menu turns a language off and on"() {
    const name = await write();
    const choose = async (label) => {
      await editor.status.locator("a").click();
      const rows = editor.page.locator(".quick-input-list .monaco-list-row");
      await rows.filter({ hasText: label }).first().waitFor();
      if (label.includes("off")) await editor.screenshot("menu");
      await rows.filter({ hasText: label }).first().click();
    };
    await choose("Turn suggestions off for python");
    await editor.statusSays(/off: turned off for python/);
    await editor.goToLine(line);
    await editor.type("if job");
    await says(name, "if job");
    assert.deepEqual(requestsBehind(name, ""), []);
    await choose("Turn suggestions on for python");
    await editor.statusSays(/keystate: ready/);
    const settings = JSON.parse(readFileSync(editor.settingsFile, "utf8"));
    assert.deepEqual(settings["keystate.languages"], { python: true });
    await editor.goToLine(line);
    await editor.type(".");
    await editor.ghostShown();
  },

  async "snoozing holds back what appears by itself"() {
    const name = await write();
    await editor.command("keystate: Snooze for 5 Minutes, or Wake Up");
    await editor.statusSays(/off: snoozing for 5 more minutes/);
    await editor.goToLine(line);
    await editor.type("if job");
    await says(name, "if job");
    assert.deepEqual(requestsBehind(name, ""), []);
    await editor.press("Alt+\\");
    await editor.ghostShown();
    await editor.command("keystate: Snooze for 5 Minutes, or Wake Up");
    await editor.statusSays(/keystate: ready/);
  },

  async "secrets are not told to the server"() {
    await editor.open(".env.local", "TOKEN=abc\n");
    await editor.statusSays(/off: a file whose name says that it holds secrets/);
    await editor.goToLine(2);
    await editor.type("KEY=ab");
    const text = await editor.savedText(".env.local", (saved) => saved.includes("KEY=ab"));
    assert.equal(text, "TOKEN=abc\nKEY=ab");
    const about = editor.recorded().filter(({ from, message }) => from === "client" && JSON.stringify(message).includes(".env.local"));
    // The text of its settings and folders aside, nothing the client says names it.
    assert.deepEqual(about.map(({ message }) => message.method), []);
    await editor.closeAll();
    await openNotebook("credentials.ipynb");
    await editor.type("    print(sys.a");
    await editor.statusSays(/off: a file whose name says that it holds secrets/);
    // What comes after it is told of.
    await write();
    const aboutNotebook = editor.recorded().filter(({ from, message }) => from === "client" && JSON.stringify(message).includes("credentials.ipynb"));
    assert.deepEqual(aboutNotebook.map(({ message }) => message.method), []);
  },

  async "a diff is quiet"() {
    const name = await write("if job");
    await editor.ghostShown();
    await editor.press("Escape");
    await editor.command("File: Compare Active File with Saved");
    await editor.page.locator(".monaco-diff-editor .modified .view-line").first().waitFor();
    await editor.statusSays(/off: a diff/);
    const since = nRequests();
    const changes = editor.sent("textDocument/didChange").length;
    await editor.page.locator(".monaco-diff-editor .modified .view-lines:not(.line-delete)").first().click();
    await editor.type("x = se");
    await until("the edit", () => editor.sent("textDocument/didChange").length > changes);
    await editor.screenshot("diff");
    const { character } = positionAfter("if job");
    const isInDiff = ({ params: { position } }) => position.line !== line - 1 || position.character !== character;
    assert.deepEqual(requestsFor(name, since).filter(isInDiff), []);
    await editor.command("View: Revert and Close Editor");
  },

  async "an untitled text gets suggestions"() {
    await editor.closeAll();
    await editor.command("File: New Untitled Text File");
    await editor.statusSays(/off: turned off for plaintext/);
    await editor.page.locator('.statusbar-item[id="status.editor.mode"] a').click();
    const input = editor.page.locator(".quick-input-widget .quick-input-box input").first();
    await input.fill("python");
    await editor.page.locator('.quick-input-list .monaco-list-row[aria-label^="Python"]').first().click();
    await editor.statusSays(/keystate: ready/);
    await editor.type("import os\nimport sys\n\n\ndef main():\n    print(sys.argv)\n    print(sys.a");
    await editor.ghostShown();
    assert.ok(editor.answers().some(({ params, items }) => items?.[0] && params.textDocument.uri.startsWith("untitled:")));
    await editor.screenshot("untitled");
    await editor.command("View: Revert and Close Editor");
  },

  async "a notebook's cell gets suggestions"() {
    await openNotebook("notes.ipynb");
    await editor.type("    print(sys.a");
    await editor.ghostShown();
    assert.ok(editor.answers().some(({ params, items }) => items?.[0] && params.textDocument.uri.startsWith("vscode-notebook-cell:")));
    await editor.screenshot("notebook");
    await editor.command("View: Revert and Close Editor");
  },

  async "the page about latency opens"() {
    // The server tells each answer's time once, and the recorder would have it.
    writeFileSync(join(home, "no-probes"), "");
    await write("if job");
    await editor.ghostShown();
    await editor.command("keystate: Show Latency of the Last Suggestions");
    await editor.page.locator('.tab.active[data-resource-name="keystate latency.txt"]').waitFor();
    await editor.page.locator(".view-line").filter({ hasText: /stage\s+p50\s+p95\s+max/ }).waitFor();
    await editor.screenshot("latency");
    rmSync(join(home, "no-probes"));
  },

  async "a server that dies is started again"() {
    await write();
    const { pid } = editor.recorded().findLast((entry) => entry.pid !== undefined);
    process.kill(pid, "SIGKILL");
    await until("another server", () => editor.recorded().findLast((entry) => entry.pid !== undefined).pid !== pid);
    await editor.statusSays(/keystate: ready/, 120_000);
    await editor.goToLine(line);
    await editor.type("if job");
    await editor.ghostShown();
  },

  async "a server that keeps ending says what helps"() {
    await write();
    const broken = join(home, "broken");
    writeFileSync(broken, "");
    process.kill(editor.recorded().findLast((entry) => entry.pid !== undefined).pid, "SIGKILL");
    await editor.statusSays(/its server keeps ending.*Restart Server/, 60_000);
    await editor.screenshot("error");
    rmSync(broken);
    await editor.command("keystate: Restart Server");
    await editor.statusSays(/keystate: ready/, 120_000);
  },

  async "a program that is no server can be replaced"() {
    editor.changeMachineSettings({ "keystate.serverCommand": ["sh", "-c", "exec sleep 1000"] });
    await editor.statusSays(/keystate: starting/);
    editor.changeMachineSettings({ "keystate.serverCommand": serverCommand });
    await editor.statusSays(/keystate: ready/, 60_000);
    await write("if job");
    await editor.ghostShown();
  },

  async "the server inside the extension is installed"() {
    editor.changeMachineSettings({
      "keystate.serverCommand": [],
      "keystate.python": python,
      "keystate.pipArguments": ["--no-deps", "--no-index"],
    });
    await editor.statusSays(/its server is not installed.*Install Server/, 60_000);
    await editor.command("keystate: Install Server");
    await editor.page.locator(".notification-list-item").filter({ hasText: "Installing keystate's server" }).waitFor();
    await editor.screenshot("installing");
    await editor.statusSays(/keystate: ready/, 300_000);
    assert.ok(existsSync(join(editor.userData, "User/globalStorage/keystate.keystate/server/installed.json")));
    await editor.closeAll();
    await editor.open("installed.py", before + after);
    await editor.goToLine(line);
    await editor.type("if job");
    await editor.ghostShown();
  },
};

const only = process.env.STEPS ? new RegExp(process.env.STEPS) : undefined;
const outcomes = [];
let isStarted = false;
for (const [name, step] of Object.entries(steps)) {
  if (isStarted && only !== undefined && !only.test(name)) continue;
  const startMs = Date.now();
  let error = null;
  try {
    await step();
    isStarted = true;
  } catch (caught) {
    error = String(caught.stack ?? caught);
    if (editor.page) {
      await editor.screenshot(`failed-${outcomes.length + 1}`).catch(() => {});
      await editor.press("Escape", "Escape").catch(() => {});
    }
  }
  outcomes.push({ name, ms: Date.now() - startMs, error });
  console.log(`${error === null ? "ok    " : "FAILED"} ${((Date.now() - startMs) / 1000).toFixed(1)} s  ${name}${error === null ? "" : `\n${error}`}`);
  writeFileSync(join(artefacts, "outcomes.json"), JSON.stringify(outcomes, undefined, 2));
  // Without an editor there is nothing to take through further steps.
  if (!isStarted) break;
}
await editor.stop();
if (existsSync(editor.recording)) copyFileSync(editor.recording, join(artefacts, "recording.jsonl"));
const logs = existsSync(join(editor.userData, "logs")) ? readdirSync(join(editor.userData, "logs"), { recursive: true }) : [];
for (const path of logs.filter((name) => name.endsWith("keystate.log"))) {
  copyFileSync(join(editor.userData, "logs", path), join(artefacts, "extension.log"));
}
rmSync(home, { recursive: true, force: true });
process.exitCode = outcomes.every(({ error }) => error === null) ? 0 : 1;
