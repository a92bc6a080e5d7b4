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
