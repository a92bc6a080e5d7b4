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
  "maxFileChars",
  "speculateOnBattery",
] as const;

/** The settings a server takes when it starts: after a change of these it is started anew. */
export const START_KEYS = ["serverCommand", "model", "device", "quantize", "threads", "shareEngine", "saveStates"] as const;

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
