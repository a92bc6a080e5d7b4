/** Promises: work that must not run twice at a time, and work whose end nobody waits for. */

/** As `work`; while it is under way, a further call gives the same promise. */
export function oneAtATime<Result>(work: () => Promise<Result>): () => Promise<Result> {
  let underWay: Promise<Result> | undefined;
  return () =>
    (underWay ??= work().finally(() => {
      underWay = undefined;
    }));
}

/** Let it run; what goes wrong in it is logged. */
export function unawaited(work: PromiseLike<unknown>, log: { error(text: string): void }): void {
  work.then(undefined, (error: unknown) => {
    log.error(String(error));
  });
}
