/** The settings, as the parts of the extension and the server want them. */

/** Reads one setting below `keystate.`; as VS Code's `WorkspaceConfiguration.get`. */
export type Get = (key: string) => unknown;

/** What the server takes; it warns of names that it does not know, so nothing else is sent. */
const SERVER_KEYS = [
  "model",
  "device",
  "quantize",
  "threads",
  "shareEngine",
  "deadlineMs",
  "invokedDeadlineMs",
  "maxTokens",
  "minConfidence",
  "saveStates",
  "statistics",
  "enabled",
  "languages",
  "exclude",
  "readWorkspace",
  "maxFileChars",
  "speculateOnBattery",
] as const;

/** The settings a server takes when it starts: after a change of these it is started anew. */
export const START_KEYS = ["serverCommand", "model", "device", "quantize", "threads", "shareEngine", "saveStates"] as const;

const LISTS = {
  serverCommand: ["/home/me/keystate/.venv/bin/keystate", "serve"],
  pipArguments: ["--extra-index-url", "https://…"],
} as const;

/** A setting that is a list of strings; throws where it is something else, with what is expected. */
export function listSetting(get: Get, key: keyof typeof LISTS): readonly string[] {
  const value = get(key) ?? [];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) {
    return value;
  }
  throw new Error(
    `the setting keystate.${key} is ${JSON.stringify(value)}; it must be an array of strings, such as ${JSON.stringify(LISTS[key])}.`,
  );
}

/** The server's settings; what is empty is left out, so that the server's own default holds. */
export function serverSettings(get: Get): Record<string, unknown> {
  const settings: Record<string, unknown> = {};
  for (const key of SERVER_KEYS) {
    const value = get(key);
    if (value !== undefined && value !== null && value !== "") {
      settings[key] = value;
    }
  }
  return settings;
}
