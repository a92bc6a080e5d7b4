/** What the status bar says, from what is known of the server and of the place. */

import type { StaticFeature } from "vscode-languageclient/node";

/** Has the server send `keystate/status`: it does so only where it is asked to. */
export const HEARS_STATUS: StaticFeature = {
  fillClientCapabilities(capabilities) {
    capabilities.experimental = { ...(capabilities.experimental as object | undefined), keystateStatus: true };
  },
  initialize: () => undefined,
  getState: () => ({ kind: "static" }),
  clear: () => undefined,
};

/** The server's state; `keystate/status` tells it, where the server sends that. */
export interface ServerStatus {
  readonly kind: "stopped" | "starting" | "ready" | "busy" | "off" | "error";
  /** What is going on, or what is wrong and what helps. */
  readonly message?: string;
  readonly model?: string;
  readonly device?: string;
}

/** What the status bar's item shows. */
export interface StatusView {
  readonly text: string;
  /** Lines of text. */
  readonly tooltip: readonly string[];
  readonly isError: boolean;
}

const KINDS = ["starting", "ready", "busy", "off", "error"] as const;

/** A server's `keystate/status`, checked; undefined if it is of another shape. */
export function readStatus(params: unknown): ServerStatus | undefined {
  if (typeof params !== "object" || params === null) {
    return undefined;
  }
  const given = params as Record<string, unknown>;
  const kind = KINDS.find((known) => known === given["kind"]);
  if (kind === undefined) {
    return undefined;
  }
  const text = (key: string): Record<string, string> => {
    const value = given[key];
    return typeof value === "string" && value !== "" ? { [key]: value } : {};
  };
  return { kind, ...text("message"), ...text("model"), ...text("device") };
}

/** The item for a server and a place; `off` is why nothing is suggested here, if so. */
export function statusView(server: ServerStatus, off: string | undefined, isThinking: boolean): StatusView {
  const about = [
    ...(server.model === undefined ? [] : [`Model: ${server.model}`]),
    ...(server.device === undefined ? [] : [`Device: ${server.device}`]),
  ];
  const view = (icon: string, line: string, isError = false): StatusView => ({
    text: `$(${icon}) keystate`,
    tooltip: [`keystate: ${line}`, ...about, "Click for a menu."],
    isError,
  });
  if (server.kind === "error") {
    return view("warning", server.message ?? "the server reports an error; its log says more", true);
  }
  if (off !== undefined) {
    return view("circle-slash", `off: ${off}`);
  }
  switch (server.kind) {
    case "stopped":
      return view("debug-disconnect", server.message ?? "the server is not running");
    case "starting":
      return view("sync~spin", server.message ?? "starting");
    case "off":
      return view("circle-slash", `off: ${server.message ?? "the server suggests nothing here"}`);
    case "ready":
    case "busy":
      return isThinking || server.kind === "busy"
        ? view("loading~spin", server.message ?? "thinking")
        : view("sparkle", server.message ?? "ready");
  }
}
