/** What the decision needs to know of a snapshot. */
export interface RetainedSnapshot {
  sequence: number;
  /** When it was taken, in milliseconds since 1970. */
  createdAt: number;
  /** What it occupies by itself, in bytes. */
  bytes: number;
  pinned: boolean;
}

/** How many, how old and how large (H05); a limit that is missing does not limit. */
export interface RetentionPolicy {
  keep?: number;
  maxAgeMs?: number;
  maxBytes?: number;
}

/** A snapshot that has to go, with the reason. */
export interface Expired {
  sequence: number;
  reason: 'keep' | 'age' | 'bytes';
}

/**
 * Which snapshots of one job have to go, oldest first. Pinned ones stay and are not counted; the newest always stays, whatever the
 * limits say: a job with a policy must never be left without a snapshot.
 */
export function expiredSnapshots(
  snapshots: readonly RetainedSnapshot[],
  policy: RetentionPolicy,
  now: number,
): Expired[] {
  const newestFirst = snapshots.toSorted((a, b) => b.sequence - a.sequence);
  const newest = newestFirst[0]?.sequence;
  const expired: Expired[] = [];
  let kept = 0;
  let bytes = 0;
  for (const snapshot of newestFirst) {
    if (snapshot.pinned) continue;
    const reason = ((): Expired['reason'] | undefined => {
      if (snapshot.sequence === newest) return undefined;
      if (policy.keep !== undefined && kept >= policy.keep) return 'keep';
      if (policy.maxAgeMs !== undefined && now - snapshot.createdAt > policy.maxAgeMs) return 'age';
      if (policy.maxBytes !== undefined && bytes + snapshot.bytes > policy.maxBytes) return 'bytes';
      return undefined;
    })();
    if (reason !== undefined) {
      expired.push({ sequence: snapshot.sequence, reason });
    } else {
      kept += 1;
      bytes += snapshot.bytes;
    }
  }
  return expired.reverse();
}
