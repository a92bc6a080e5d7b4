/** When the server is told that the cursor went somewhere else without an edit. */

/** A position as LSP counts it. */
export interface Position {
  readonly line: number;
  readonly character: number;
}

/** The edit of a document that an editor reports, as far as it is of interest here. */
export interface Change {
  readonly start: Position;
  readonly text: string;
}

/** Where the text that a change put in ends. */
export function endOf(change: Change): Position {
  const lines = change.text.split(/\r\n|\r|\n/);
  const last = lines[lines.length - 1] ?? "";
  return lines.length === 1
    ? { line: change.start.line, character: change.start.character + last.length }
    : { line: change.start.line + lines.length - 1, character: last.length };
}

/** Tells of a cursor's moves once it rests; an edit takes back what was to be told. */
export class CursorMoves {
  private timer: NodeJS.Timeout | undefined;
  private readAhead: { uri: string; position: Position } | undefined;

  constructor(
    private readonly tell: (uri: string, position: Position) => void,
    private readonly restMs = 80,
  ) {}

  /** A document was edited: the server reads ahead to the end of that on its own. */
  edited(uri: string, change: Change | undefined): void {
    clearTimeout(this.timer);
    this.readAhead = change && { uri, position: endOf(change) };
  }

  /** The cursor stands at a position now. */
  moved(uri: string, position: Position): void {
    clearTimeout(this.timer);
    const known = this.readAhead;
    if (
      known?.uri === uri &&
      known.position.line === position.line &&
      known.position.character === position.character
    ) {
      return;
    }
    this.timer = setTimeout(() => {
      this.readAhead = { uri, position };
      this.tell(uri, position);
    }, this.restMs);
  }

  dispose(): void {
    clearTimeout(this.timer);
  }
}
