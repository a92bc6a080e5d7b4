/** What is done about servers that end. */

/** The servers of a window, one after the other: of each, its end is taken care of once. */
export class Lives {
  private ended = -1;
  /** The number of the one that runs, or is being started. */
  current = 0;

  /** Whatever ran is of no concern any more. */
  next(): void {
    this.current += 1;
  }

  /** Whether to do something about the end of a server, be it that it died or that it did not start. */
  isNewEnd(life: number): boolean {
    if (life !== this.current || life === this.ended) {
      return false;
    }
    this.ended = life;
    return true;
  }
}

/** How often a server that dies is started again before that is left to the user. */
export class RestartBudget {
  private deathsMs: number[] = [];

  /** At most `limit` restarts within `windowMs`. */
  constructor(
    private readonly limit = 4,
    private readonly windowMs = 180_000,
  ) {}

  /** Note a death; whether to start again. */
  mayRestart(nowMs: number): boolean {
    this.deathsMs = this.deathsMs.filter((deathMs) => nowMs - deathMs < this.windowMs);
    this.deathsMs.push(nowMs);
    return this.deathsMs.length <= this.limit;
  }

  /** Forget what was: the user has started it by hand. */
  reset(): void {
    this.deathsMs = [];
  }
}
