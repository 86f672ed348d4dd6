/**
 * The state of a node or a cluster: a small key-value store with revisions.
 *
 * Contract, kept by every implementation and checked by `state-contract.ts`:
 *
 * - Keys are strings such as `jobs/j-0123456789ab`; values are JSON.
 * - Every change gets a revision greater than all before it; an entry carries the revision of its last change.
 * - When a promise of a change resolves, the change is durable: it survives SIGKILL and a power cut.
 * - A compare-and-swap changes an entry only if its revision is still the one given; 0 means "does not exist".
 * - A watcher sees the changes of its prefix in the order of their revisions, each one once.
 *
 * On one node this is SQLite; etcd fits behind it (revision = mod_revision, compare-and-swap = a transaction).
 */
export interface State extends AsyncDisposable {
  /** The entry under this key, or `undefined`. */
  get(key: string): Promise<StateEntry | undefined>;
  /** All entries whose keys begin with the prefix, in the order of their keys. */
  list(prefix: string): Promise<StateEntry[]>;
  /** Writes the value whatever was there before. Returns the new revision. */
  put(key: string, value: Json): Promise<number>;
  /**
   * Writes the value (or deletes the entry, if it is `undefined`) if the revision of the entry is `expected`; 0 expects that there is
   * none. Returns the new revision, or `undefined` if the entry has changed in the meantime.
   */
  compareAndSwap(key: string, expected: number, value: Json | undefined): Promise<number | undefined>;
  /** Deletes the entry; says whether there was one. */
  delete(key: string): Promise<boolean>;
  /** The changes of the entries whose keys begin with the prefix, from the moment of the call until the signal aborts. */
  watch(prefix: string, options: { signal: AbortSignal }): AsyncIterable<StateChange>;
}

/** What JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** One key with its value and the revision of its last change. */
export interface StateEntry {
  key: string;
  value: Json;
  revision: number;
}

/** One change: `value` is `undefined` when the entry was deleted. */
export interface StateChange {
  key: string;
  value: Json | undefined;
  revision: number;
}
