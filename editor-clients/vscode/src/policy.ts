/** Where suggestions are made and where not, and why not. */

import { isSecret } from "./secrets";

/** The schemes of text that somebody writes; diffs, output, chat and source control have others. */
export const SCHEMES = ["file", "untitled", "vscode-notebook-cell"];

/** What is known of a place where a suggestion could be made. */
export interface Place {
  readonly languageId: string;
  readonly scheme: string;
  /** The URI's path. */
  readonly path: string;
  /** Whether it is seen as one side of a diff. */
  readonly isInDiff: boolean;
}

/** What the user has said about suggestions. */
export interface Wishes {
  readonly enabled: boolean;
  /** By language identifier; "*" is every other language. */
  readonly languages: Readonly<Record<string, boolean>>;
  /** Until when nothing appears by itself, in milliseconds since 1970; 0: not snoozing. */
  readonly snoozedUntilMs: number;
}

/** Whether a language is on. */
export function isLanguageOn(languageId: string, languages: Wishes["languages"]): boolean {
  return languages[languageId] ?? languages["*"] ?? true;
}

/**
 * Why nothing is suggested here, in words that follow "off: "; undefined where something is.
 *
 * A language that is off and snoozing hold back what appears by itself, and not what is asked for.
 */
export function offReason(place: Place, wishes: Wishes, nowMs: number, isInvoked: boolean): string | undefined {
  if (!wishes.enabled) {
    return "turned off";
  }
  if (!SCHEMES.includes(place.scheme)) {
    return "not a file, an untitled text or a notebook's cell";
  }
  if (isSecret(place.path)) {
    return "a file whose name says that it holds secrets";
  }
  if (place.isInDiff) {
    return "a diff";
  }
  if (!isInvoked && !isLanguageOn(place.languageId, wishes.languages)) {
    return `turned off for ${place.languageId}`;
  }
  if (!isInvoked && nowMs < wishes.snoozedUntilMs) {
    const minutes = Math.ceil((wishes.snoozedUntilMs - nowMs) / 60_000);
    return `snoozing for ${minutes} more ${minutes === 1 ? "minute" : "minutes"}`;
  }
  return undefined;
}
