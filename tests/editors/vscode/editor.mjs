// VS Code in a browser, with the extension in it: started, driven and read.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { delimiter, dirname, join } from "node:path";

const BROWSER_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** For what the machine does; on two busy cores a page can take most of a minute. */
const START_MS = 120_000;
const WAIT_MS = 20_000;
const MACHINE_SETTINGS = ["keystate.serverCommand", "keystate.shareEngine", "keystate.saveStates"];
const SERVER = process.platform === "win32" ? "keystate.exe" : "keystate";

export const GHOST = ".monaco-editor .ghost-text-decoration, .monaco-editor .ghost-text-decoration-preview";
export const GHOST_LINES = ".monaco-editor .suggest-preview-text .view-line, .monaco-editor .ghost-text .view-line";

/** Wait until `look` gives something truthy, and give that. */
export async function until(what, look, timeoutMs = WAIT_MS) {
  const endMs = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export class Editor {
  /**
   * `installed`: the folder that install.sh made; `home`: a folder for everything this run makes;
   * `artefacts`: for screenshots; `vsix`; `settings`: the user's, to begin with; `variables`: of
   * its environment, besides this process'.
   */
  constructor({ installed, home, artefacts, vsix, settings, variables = {} }) {
    Object.assign(this, { installed, home, artefacts, vsix, settings, variables });
    this.entry = join(installed, "node_modules/code-server/out/node/entry.js");
    this.workspace = join(home, "workspace");
    this.userData = join(home, "user-data");
    this.recording = join(home, "recording.jsonl");
    this.settingsFile = join(this.userData, "User/settings.json");
    // A browser is a remote window: what is set for a machine stands with the server's machine.
    this.machineSettingsFile = join(this.userData, "Machine/settings.json");
    for (const folder of [this.workspace, dirname(this.settingsFile), dirname(this.machineSettingsFile), artefacts]) {
      mkdirSync(folder, { recursive: true });
    }
    const entries = Object.entries(settings);
    const write = (file, some) => writeFileSync(file, JSON.stringify(Object.fromEntries(some), undefined, 2));
    write(this.machineSettingsFile, entries.filter(([key]) => MACHINE_SETTINGS.includes(key)));
    write(this.settingsFile, entries.filter(([key]) => !MACHINE_SETTINGS.includes(key)));
  }

  /** Change settings that are the machine's, which the editor notices at once. */
  changeMachineSettings(changes) {
    const before = JSON.parse(readFileSync(this.machineSettingsFile, "utf8"));
    writeFileSync(this.machineSettingsFile, JSON.stringify({ ...before, ...changes }, undefined, 2));
  }

  /** Write the workspace's settings, which the editor notices at once. */
  changeSettings(settings) {
    mkdirSync(join(this.workspace, ".vscode"), { recursive: true });
    writeFileSync(join(this.workspace, ".vscode/settings.json"), JSON.stringify(settings));
  }

  get folders() {
    return ["--user-data-dir", this.userData, "--extensions-dir", join(this.home, "extensions")];
  }

  get environment() {
    const here = { HOME: this.home, XDG_CACHE_HOME: join(this.home, "cache"), XDG_CONFIG_HOME: join(this.home, "config"), XDG_DATA_HOME: join(this.home, "data") };
    // Which server is used must not depend on the machine.
    const isBare = (folder) => !existsSync(join(folder, SERVER));
    const path = process.env.PATH.split(delimiter).filter(isBare).join(delimiter);
    return { ...process.env, ...here, PATH: path, ...this.variables };
  }

  installExtension() {
    const args = [this.entry, ...this.folders, "--install-extension", this.vsix];
    return execFileSync(process.execPath, args, { env: this.environment, encoding: "utf8" });
  }

  async start() {
    const port = await freePort();
    const flags = ["--auth", "none", "--bind-addr", `127.0.0.1:${port}`, "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"];
    this.process = spawn(process.execPath, [this.entry, ...this.folders, ...flags, this.workspace], {
      env: this.environment,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let said = "";
    this.process.stdout.on("data", (data) => (said += data));
    this.process.stderr.on("data", (data) => (said += data));
    await until("code-server listens", () => said.includes("HTTP server listening"), START_MS);
    const { chromium } = createRequire(join(this.installed, "package.json"))("playwright-core");
    this.browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: BROWSER_FLAGS });
    const context = await this.browser.newContext({ viewport: { width: 1100, height: 640 }, deviceScaleFactor: 2 });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: `http://127.0.0.1:${port}` });
    this.page = await context.newPage();
    this.page.setDefaultTimeout(WAIT_MS);
    await this.page.goto(`http://127.0.0.1:${port}/?folder=${encodeURIComponent(this.workspace)}`, { timeout: START_MS });
    await this.page.locator(".monaco-workbench").waitFor({ timeout: START_MS });
    await this.page.locator(".statusbar-item").first().waitFor({ timeout: START_MS });
  }

  async stop() {
    await this.browser?.close();
    if (this.process && this.process.exitCode === null) {
      const gone = new Promise((resolve) => this.process.once("exit", resolve));
      // Its own group: code-server has children.
      process.kill(-this.process.pid, "SIGTERM");
      await gone;
    }
  }

  screenshot(name) {
    return this.page.screenshot({ path: join(this.artefacts, `${name}.png`) });
  }

  press(...keys) {
    return keys.reduce((before, key) => before.then(() => this.page.keyboard.press(key)), Promise.resolve());
  }

  /** Type as somebody does; what the editor closes by itself is not waited for. */
  type(text, delay = 40) {
    return this.page.keyboard.type(text, { delay });
  }

  /** Run a command by its title. */
  async command(title) {
    await this.press("F1");
    const input = this.page.locator(".quick-input-widget .quick-input-box input").first();
    await input.fill(`>${title}`);
    // Others may be listed before it.
    await this.page.locator(`.quick-input-list .monaco-list-row[aria-label^="${title}"]`).first().click();
    await this.page.locator(".quick-input-widget .quick-input-box input").first().waitFor({ state: "hidden" }).catch(() => {});
  }

  /** Choose a file of the workspace among those that can be opened. */
  async choose(name) {
    await this.press("Control+P");
    const input = this.page.locator(".quick-input-widget .quick-input-box input").first();
    await input.fill(join(this.workspace, name));
    // Enter would take what is listed first, which may still be another one.
    await this.page.locator(".quick-input-list .monaco-list-row").filter({ hasText: name }).first().click();
  }

  /** Make a file in the workspace and open it, alone. */
  async open(name, text) {
    if (text !== undefined) writeFileSync(join(this.workspace, name), text);
    await this.choose(name);
    await this.page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor();
    await this.page.locator(".monaco-editor .view-line").first().waitFor();
  }

  /** Close what is open, whatever has been typed there. */
  async closeAll() {
    const tabs = this.page.locator(".editor-group-container .tab");
    while ((await tabs.count()) > 0) {
      const before = await tabs.count();
      await this.command("View: Revert and Close Editor");
      await until("a tab is closed", async () => (await tabs.count()) < before);
    }
  }

  /** Put the cursor at a line, counted from 1, and its end. */
  async goToLine(line) {
    await this.press("Control+G");
    await this.page.locator(".quick-input-widget .quick-input-box input").first().fill(`:${line}`);
    await this.press("Enter");
    await this.page.locator(".quick-input-widget:visible").waitFor({ state: "hidden" });
    await this.press("End");
  }

  /** Save the active document, and wait until `isWanted` holds for its text; gives the text. */
  async savedText(name, isWanted) {
    await this.press("Control+S");
    const read = () => readFileSync(join(this.workspace, name), "utf8");
    // Saving takes a moment, and the file is empty for a part of it.
    await until("the text that was wanted", () => isWanted(read()), 5000).catch(() => {});
    return read();
  }

  /** The ghost text that is seen now, "" if none: what is in the cursor's line, then whole lines. */
  async ghost() {
    const read = (selector) => this.page.locator(selector).allTextContents();
    const parts = [(await read(GHOST)).join(""), ...(await read(GHOST_LINES))];
    return parts.join("\n").replaceAll("\u00a0", " ").trimEnd();
  }

  /** Wait for ghost text, and give it. */
  ghostShown(timeoutMs = WAIT_MS) {
    return until("ghost text", () => this.ghost(), timeoutMs);
  }

  ghostGone() {
    return until("no ghost text", async () => (await this.ghost()) === "");
  }

  /** What editor and server have said to each other, oldest first. */
  recorded() {
    if (!existsSync(this.recording)) return [];
    const lines = readFileSync(this.recording, "utf8").split("\n");
    // The last may be half written.
    return lines.slice(0, -1).map((line) => JSON.parse(line));
  }

  sent(method, from = "client") {
    return this.recorded().filter((line) => line.from === from && line.message?.method === method).map((line) => line.message);
  }

  /** Answers about inline completion with their requests, oldest first. */
  answers() {
    const requests = new Map();
    const answers = [];
    for (const { from, message, timing, pid } of this.recorded()) {
      // Ids start again with each server.
      if (pid !== undefined) requests.clear();
      if (message?.method === "textDocument/inlineCompletion") requests.set(message.id, message.params);
      else if (from === "server" && message.method === undefined && requests.has(message.id)) {
        const { result, error } = message;
        answers.push({ id: message.id, params: requests.get(message.id), items: result?.items, result, error });
      } else if (timing !== undefined) {
        const answer = answers.findLast(({ id }) => id === timing.id);
        if (answer !== undefined) answer.timing = timing;
      }
    }
    return answers;
  }

  /** The status bar's item of the extension. */
  get status() {
    return this.page.locator('.statusbar-item[id="keystate.keystate.keystate.status"], .statusbar-item[id*="keystate.status"]').first();
  }

  async statusSays(pattern, timeoutMs = WAIT_MS) {
    return until(`status ${pattern}`, async () => {
      const label = await this.status.locator("a").getAttribute("aria-label").catch(() => null);
      return label !== null && pattern.test(label) ? label : undefined;
    }, timeoutMs);
  }
}
