/** The server's life: found, started, restarted when it dies, and told of settings. */

import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import * as vscode from "vscode";
import {
  CloseAction,
  DidChangeConfigurationNotification,
  ErrorAction,
  LanguageClient,
  type LanguageClientOptions,
  type Middleware,
  State,
  TransportKind,
} from "vscode-languageclient/node";
import { documents } from "./documents";
import { installedServer, machine } from "./installServer";
import { SCHEMES } from "./policy";
import { unawaited } from "./promises";
import { Lives, RestartBudget } from "./restarts";
import { type Command, findServer } from "./serverCommand";
import { serverLog } from "./serverLog";
import { listSetting, START_KEYS, serverSettings } from "./settings";
import { HEARS_STATUS, readStatus, type ServerStatus } from "./status";
import type { Suggestions } from "./suggestions";

const CONFIGURATION = DidChangeConfigurationNotification.method;
/** A token that is never cancelled, where a signature wants one. */
const NEVER = new vscode.CancellationTokenSource().token;
const RESTART_DELAY_MS = 500;
const STOP_TIMEOUT_MS = 3000;
/** How often a server that sends no `keystate/status` is asked whether its model is loaded. */
const POLL_MS = 500;

function pipeLog(stream: Readable, log: vscode.LogOutputChannel): void {
  const take = serverLog((level, text) => {
    log[level](text);
  });
  createInterface({ input: stream }).on("line", take);
}

/** A client that logs what goes wrong; what the user should know of it is said once, by us. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** The one server of this window. */
export class Server implements vscode.Disposable {
  private readonly budget = new RestartBudget();
  private readonly changed = new vscode.EventEmitter<void>();
  private running: LanguageClient | undefined;
  private readonly lives = new Lives();
  private queue = Promise.resolve();
  private restartTimer: NodeJS.Timeout | undefined;
  private wanted = false;
  private sent = "";
  /** Ids under which the server has asked to be told of changed settings. */
  private readonly listeners = new Set<string>();

  /** Fires when `status` has changed. */
  readonly onDidChange = this.changed.event;
  status: ServerStatus = { kind: "stopped" };
  /** Whether there is no server to start, so that one could be installed. */
  isMissing = false;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly log: vscode.LogOutputChannel,
    private readonly suggestions: () => Suggestions,
  ) {}

  /** The client of a server that has answered `initialize` and is not gone. */
  get client(): LanguageClient | undefined {
    return this.running?.isRunning() === true ? this.running : undefined;
  }

  /** Start it, if that was not tried before. */
  ensureStarted(): Promise<void> {
    return this.wanted ? this.queue : this.restart();
  }

  /** Stop it if it runs, and start it. */
  restart(): Promise<void> {
    this.wanted = true;
    this.budget.reset();
    this.giveUpStarting();
    return this.inTurn(() => this.start());
  }

  /** Take changed settings: told to a server that listens, else by starting anew. */
  async configurationChanged(event: vscode.ConfigurationChangeEvent): Promise<void> {
    if (!this.wanted) {
      return;
    }
    if (START_KEYS.some((key) => event.affectsConfiguration(`keystate.${key}`))) {
      await this.restart();
      return;
    }
    const settings = this.settings();
    if (JSON.stringify(settings) === this.sent) {
      return;
    }
    const { client } = this;
    if (client !== undefined && this.listeners.size > 0) {
      this.sent = JSON.stringify(settings);
      await client.sendNotification(CONFIGURATION, { settings: { keystate: settings } });
    } else {
      await this.restart();
    }
  }

  /** Say goodbye to the server and wait until it is gone. */
  async stop(): Promise<void> {
    this.wanted = false;
    this.giveUpStarting();
    await this.inTurn(() => this.end());
  }

  dispose(): void {
    clearTimeout(this.restartTimer);
    this.changed.dispose();
  }

  /** What does not answer `initialize`, such as a program that is no server, would hold up all that follows. */
  private giveUpStarting(): void {
    if (this.running?.state === State.Starting) {
      this.lives.next();
      this.running.serverProcess?.kill();
    }
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    clearTimeout(this.restartTimer);
    this.queue = this.queue.then(work, work);
    return this.queue;
  }

  private async end(): Promise<void> {
    this.lives.next();
    const client = this.running;
    this.running = undefined;
    this.become({ kind: "stopped" });
    // A server that does not go is killed by the client's own watch.
    await client?.dispose(STOP_TIMEOUT_MS).catch((error: unknown) => {
      this.log.warn(`stopping: ${String(error)}`);
    });
  }

  private async start(): Promise<void> {
    await this.end();
    const life = this.lives.current;
    const settings = vscode.workspace.getConfiguration("keystate");
    this.isMissing = false;
    let command: Command | undefined;
    try {
      const setting = listSetting((key) => settings.get(key), "serverCommand");
      command = findServer(setting, installedServer(this.context), machine);
    } catch (error) {
      this.fail((error as Error).message);
      return;
    }
    this.isMissing = command === undefined;
    if (command === undefined) {
      this.become({ kind: "error", message: "its server is not installed. Click, and choose Install Server." });
      return;
    }
    this.log.info(`starting ${[command.command, ...command.args].join(" ")} (${command.from})`);
    const client = this.makeClient(command, life);
    this.running = client;
    this.listeners.clear();
    this.become({ kind: "starting", message: "starting" });
    client.onNotification("keystate/status", (params: unknown) => {
      const status = readStatus(params);
      if (status !== undefined && life === this.lives.current) {
        this.become(status);
      }
    });
    try {
      await client.start();
    } catch (error) {
      this.log.error(`starting: ${String(error)}`);
      if (this.lives.isNewEnd(life)) {
        this.fail(
          `its server could not be started (${command.command}). The log says why; the setting keystate.serverCommand names another.`,
        );
      }
      return;
    }
    unawaited(this.pollUntilReady(client, life), this.log);
  }

  private makeClient(command: Command, life: number): LanguageClient {
    const settings = this.settings();
    this.sent = JSON.stringify(settings);
    const options: LanguageClientOptions = {
      documentSelector: SCHEMES.map((scheme) => ({ scheme })),
      initializationOptions: settings,
      outputChannel: this.log,
      stdioOptions: { stdout: pipeLog, stderr: pipeLog },
      traceOutputChannel: this.log,
      middleware: this.middleware(),
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => {
          this.died(life);
          return { action: CloseAction.DoNotRestart, handled: true };
        },
      },
    };
    const executable = {
      command: command.command,
      args: [...command.args],
      transport: TransportKind.stdio,
    };
    const client = new QuietClient("keystate", "keystate", executable, options);
    client.registerFeature(HEARS_STATUS);
    return client;
  }

  private middleware(): Middleware {
    return {
      ...documents,
      provideInlineCompletionItems: (document, position, context, token) =>
        this.suggestions().provide(document, position, context, token),
      handleRegisterCapability: async (params, next) => {
        const asked = params.registrations.filter(({ method }) => method === CONFIGURATION);
        asked.forEach(({ id }) => this.listeners.add(id));
        await next(params, NEVER);
      },
      handleUnregisterCapability: async (params, next) => {
        params.unregisterations.forEach(({ id }) => this.listeners.delete(id));
        await next(params, NEVER);
      },
      workspace: {
        // A server that asks for our section gets its own settings, and not the client's with them.
        configuration: async (params, token, next) => {
          const answers = await next(params, token);
          return Array.isArray(answers)
            ? answers.map((answer: unknown, i) => (params.items[i]?.section === "keystate" ? this.settings() : answer))
            : answers;
        },
        // `configurationChanged` does it, with the server's own settings only.
        didChangeConfiguration: () => Promise.resolve(),
      },
    };
  }

  private died(life: number): void {
    if (!this.lives.isNewEnd(life)) {
      return;
    }
    if (this.budget.mayRestart(Date.now())) {
      this.become({ kind: "starting", message: "the server ended, starting it again" });
      const again = () => this.inTurn(() => this.start());
      this.restartTimer = setTimeout(() => {
        unawaited(again(), this.log);
      }, RESTART_DELAY_MS);
    } else {
      this.fail("its server keeps ending. The log says why; then choose Restart Server.");
    }
  }

  /** Say once, and in the status bar from then on, what is broken. */
  private fail(message: string): void {
    this.become({ kind: "error", message });
    const tell = async () => {
      const chosen = await vscode.window.showErrorMessage(`keystate: ${message}`, "Show Log", "Restart Server");
      if (chosen === "Show Log") {
        this.log.show();
      } else if (chosen === "Restart Server") {
        await this.restart();
      }
    };
    unawaited(tell(), this.log);
  }

  /** For a server that sends no `keystate/status`: its counters are empty until it is ready. */
  private async pollUntilReady(client: LanguageClient, life: number): Promise<void> {
    const isStarting = () => life === this.lives.current && this.status.kind === "starting";
    while (isStarting()) {
      try {
        const counters = await client.sendRequest<object>("keystate/counters");
        if (isStarting() && Object.keys(counters).length > 0) {
          this.become({ kind: "ready" });
        }
      } catch (error) {
        this.log.warn(`keystate/counters: ${String(error)}`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  private settings(): Record<string, unknown> {
    const settings = vscode.workspace.getConfiguration("keystate");
    return serverSettings((key) => settings.get(key));
  }

  private become(status: ServerStatus): void {
    this.status = status;
    this.changed.fire();
  }
}
