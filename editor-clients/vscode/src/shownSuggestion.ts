/**
 * What becomes of a suggestion that was handed to the editor.
 *
 * VS Code tells an extension when a suggestion is accepted whole (it runs the item's command) and
 * nothing else: that it is shown, or accepted by the word or the line, is concluded here from the
 * edits. What one key puts in, and goes along the suggestion, is typing and not accepting.
 */

/** An edit of a document, in UTF-16 offsets. */
export interface Edit {
  readonly offset: number;
  readonly removed: number;
  readonly text: string;
}

/**
 * What one key puts in: a character, a pair that the editor closes, or white space, as Tab does and
 * Enter with its indentation. A "word" that is accepted may be one of these; it counts with the next.
 */
const ONE_KEY = /^(?:.|\(\)|\[\]|\{\}|<>|""|''|``|\s+)$/su;

interface Shown<Item> {
  readonly uri: string;
  readonly item: Item;
  readonly text: string;
  /** Where its first character goes. */
  readonly offset: number;
  /** How much of it stands in the document. */
  inserted: number;
}

/** The one suggestion that is to be seen. `Item` is what the server sent. */
export class ShownSuggestion<Item> {
  private shown: Shown<Item> | undefined;

  /**
   * A suggestion is handed over, of which `inserted` characters stand in the document already.
   * Gives whether it is another one than the rest of what was seen.
   */
  show(uri: string, offset: number, text: string, inserted: number, item: Item): boolean {
    const before = this.shown;
    this.shown = { uri, item, text, offset, inserted };
    return (
      before?.uri !== uri ||
      before.offset + before.inserted !== offset + inserted ||
      before.text.slice(before.inserted) !== text.slice(inserted)
    );
  }

  /** Nothing is to be seen any more. */
  clear(): void {
    this.shown = undefined;
  }

  /**
   * A document was edited. Gives the item and how many of its characters stand in the document
   * now, if the edit is a part of the suggestion that was accepted.
   */
  edited(uri: string, edits: readonly Edit[]): { item: Item; acceptedLength: number } | undefined {
    const shown = this.shown;
    if (shown?.uri !== uri) {
      return undefined;
    }
    const [edit, ...others] = edits;
    const rest = shown.text.slice(shown.inserted);
    const goesAlong =
      edit !== undefined &&
      others.length === 0 &&
      edit.removed === 0 &&
      edit.text !== "" &&
      edit.offset === shown.offset + shown.inserted &&
      rest.startsWith(edit.text);
    if (!goesAlong || edit.text.length === rest.length) {
      this.shown = undefined;
      return undefined;
    }
    shown.inserted += edit.text.length;
    return ONE_KEY.test(edit.text) ? undefined : { item: shown.item, acceptedLength: shown.inserted };
  }
}
