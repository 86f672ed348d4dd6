import { closeSync, openSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { CairnError, messageOf } from '../errors.ts';
import type { Json, State, StateChange, StateEntry } from './state.ts';

/** Version of the tables; a database with another one is refused. */
const schemaVersion = 1;

/** A path that names no file: the state is gone when it is closed. For tests. */
export const inMemory = ':memory:';

/** Result code of SQLite when another process holds the lock. */
const sqliteBusy = 5;

/**
 * The state of one node in an SQLite file (write-ahead log, synchronous=FULL).
 *
 * The file is locked for as long as it is open (locking_mode=EXCLUSIVE): a second daemon on the same state is refused, and the
 * kernel gives the lock back when the process dies, however it dies.
 */
export class SqliteState implements State {
  readonly #database: DatabaseSync;
  readonly #watchers = new Set<Watcher>();
  readonly #get: StatementSync;
  readonly #list: StatementSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #nextRevision: StatementSync;

  private constructor(database: DatabaseSync) {
    this.#database = database;
    this.#get = database.prepare('SELECT key, value, revision FROM entries WHERE key = ?');
    this.#list = database.prepare(
      'SELECT key, value, revision FROM entries WHERE substr(key, 1, length(?)) = ? ORDER BY key',
    );
    this.#put = database.prepare(
      'INSERT INTO entries (key, value, revision) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision',
    );
    this.#delete = database.prepare('DELETE FROM entries WHERE key = ?');
    this.#nextRevision = database.prepare(
      "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value",
    );
  }

  /**
   * Opens the file, making it if there is none. Errors: `state-locked` (another daemon uses it), `state-version`,
   * `state-unreadable`.
   */
  static open(path: string): SqliteState {
    let database: DatabaseSync | undefined;
    try {
      // SQLite would make it readable for all; its own further files get the mode of this one.
      if (path !== inMemory) closeSync(openSync(path, 'a', 0o600));
      database = new DatabaseSync(path, { timeout: 0 });
      database.exec('PRAGMA locking_mode = EXCLUSIVE');
      database.exec('PRAGMA journal_mode = WAL');
      database.exec('PRAGMA synchronous = FULL');
      prepareTables(database, path);
      return new SqliteState(database);
    } catch (error) {
      database?.close();
      if (error instanceof CairnError) throw error;
      if (isBusy(error)) {
        throw new CairnError(
          'environment',
          'state-locked',
          `The state in ${path} is in use by another node daemon.`,
          {
            remedy: 'Use that daemon, stop it first, or give this one another directory with --state.',
            cause: error,
          },
        );
      }
      throw new CairnError(
        'permanent',
        'state-unreadable',
        `Opening the state in ${path} failed: ${messageOf(error)}.`,
        {
          remedy:
            'Check the disk and restore the file from a backup, or move it away to begin with an empty state.',
          cause: error,
        },
      );
    }
  }

  async get(key: string): Promise<StateEntry | undefined> {
    const row = this.#get.get(key);
    return row === undefined ? undefined : entryOf(row);
  }

  async list(prefix: string): Promise<StateEntry[]> {
    return this.#list.all(prefix, prefix).map(entryOf);
  }

  async put(key: string, value: Json): Promise<number> {
    return this.#change(key, value);
  }

  async compareAndSwap(key: string, expected: number, value: Json | undefined): Promise<number | undefined> {
    // Node.js runs this to its end without a break, and no other process has the file: nothing can come in between.
    const current = this.#get.get(key);
    const revision = current === undefined ? 0 : entryOf(current).revision;
    if (revision !== expected) return undefined;
    return this.#change(key, value);
  }

  async delete(key: string): Promise<boolean> {
    if (this.#get.get(key) === undefined) return false;
    this.#change(key, undefined);
    return true;
  }

  watch(prefix: string, options: { signal: AbortSignal }): AsyncIterable<StateChange> {
    const watcher = new Watcher(prefix, options.signal, (self) => this.#watchers.delete(self));
    if (!options.signal.aborted) this.#watchers.add(watcher);
    return watcher;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const watcher of this.#watchers) watcher.end();
    this.#database.close();
  }

  #change(key: string, value: Json | undefined): number {
    this.#database.exec('BEGIN IMMEDIATE');
    let revision: number;
    try {
      revision = numberOf(this.#nextRevision.get()?.['value']);
      if (value === undefined) this.#delete.run(key);
      else this.#put.run(key, JSON.stringify(value), revision);
      this.#database.exec('COMMIT');
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw new CairnError(
        'temporary',
        'state-write',
        `Writing ${key} to the state failed: ${messageOf(error)}.`,
        {
          remedy: 'Check that the disk of the state directory has free space and is writable.',
          cause: error,
        },
      );
    }
    for (const watcher of this.#watchers) watcher.offer({ key, value, revision });
    return revision;
  }
}

/** A queue between the changes and one reader. */
class Watcher implements AsyncIterable<StateChange> {
  readonly #prefix: string;
  readonly #signal: AbortSignal;
  readonly #onEnd: (self: Watcher) => void;
  readonly #queue: StateChange[] = [];
  #wake: (() => void) | undefined;
  #ended: boolean;

  constructor(prefix: string, signal: AbortSignal, onEnd: (self: Watcher) => void) {
    this.#prefix = prefix;
    this.#signal = signal;
    this.#onEnd = onEnd;
    this.#ended = signal.aborted;
    signal.addEventListener('abort', this.end, { once: true });
  }

  offer(change: StateChange): void {
    if (!change.key.startsWith(this.#prefix)) return;
    this.#queue.push(change);
    this.#wake?.();
  }

  readonly end = (): void => {
    this.#ended = true;
    this.#signal.removeEventListener('abort', this.end);
    this.#onEnd(this);
    this.#wake?.();
  };

  async *[Symbol.asyncIterator](): AsyncGenerator<StateChange, void, undefined> {
    try {
      for (;;) {
        const change = this.#queue.shift();
        if (change !== undefined) yield change;
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.end();
    }
  }
}

function prepareTables(database: DatabaseSync, path: string): void {
  const version = numberOf(database.prepare('PRAGMA user_version').get()?.['user_version']);
  if (version === schemaVersion) {
    // Takes the exclusive lock now, not at the first change.
    database.exec('BEGIN EXCLUSIVE; COMMIT');
    return;
  }
  if (version !== 0) {
    throw new CairnError(
      'permanent',
      'state-version',
      `The state in ${path} has version ${version}; this Cairn reads version ${schemaVersion}.`,
      { remedy: 'Use the Cairn that wrote it, or a newer one.' },
    );
  }
  database.exec(`
    BEGIN EXCLUSIVE;
    CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counters (name, value) VALUES ('revision', 0);
    PRAGMA user_version = ${schemaVersion};
    COMMIT;
  `);
}

function entryOf(row: Record<string, unknown>): StateEntry {
  return {
    key: String(row['key']),
    value: JSON.parse(String(row['value'])) as Json,
    revision: numberOf(row['revision']),
  };
}

function numberOf(value: unknown): number {
  if (typeof value !== 'number') throw new TypeError(`expected a number, found ${typeof value}`);
  return value;
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === sqliteBusy;
}
