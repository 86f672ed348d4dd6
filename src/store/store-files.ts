import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { readdir, readFile, truncate, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, messageOf, systemCode } from '../errors.ts';
import { tryLockFile } from '../linux/libc.ts';
import { ensureDirectory, exists, unfinishedSuffix, writeDurably } from './durable-file.ts';
import { formatVersion } from './format.ts';
import { checkFingerprints, fingerprintsOf, type KeyFingerprints, loadKeys, type StoreKeys } from './keys.ts';

/** Where the parts of a store are. */
export class StorePaths {
  readonly root: string;
  readonly descriptor: string;
  readonly lock: string;
  readonly indexCache: string;
  readonly damaged: string;
  readonly packs: string;
  readonly incoming: string;
  readonly snapshots: string;

  constructor(root: string) {
    this.root = root;
    this.descriptor = join(root, 'store.json');
    this.lock = join(root, 'lock');
    this.indexCache = join(root, 'index.cache');
    this.damaged = join(root, 'damaged.json');
    this.packs = join(root, 'packs');
    this.incoming = join(root, 'incoming');
    this.snapshots = join(root, 'snapshots');
  }

  async create(): Promise<void> {
    for (const directory of [this.root, this.packs, this.incoming, this.snapshots])
      await ensureDirectory(directory);
  }
}

interface Descriptor {
  format: 'cairn-store';
  version: number;
  /** 16 bytes, hexadecimal. */
  id: string;
  createdAt: string;
  keys: KeyFingerprints;
}

/**
 * Opens the identity of a store and its keys, creating both if there is no store yet. Throws (environment) `store-missing`,
 * `store-version`, `store-damaged`, `key-missing`, `key-wrong`, `key-damaged`.
 */
export async function openIdentity(
  paths: StorePaths,
  keyDirectory: string,
  create: boolean,
): Promise<{ id: string; keys: StoreKeys }> {
  let text: string;
  try {
    text = await readFile(paths.descriptor, 'utf8');
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    if (!create)
      throw new CairnError('environment', 'store-missing', `there is no snapshot store in ${paths.root}`, {
        cause: error,
      });
    return await createIdentity(paths, keyDirectory);
  }
  const descriptor = parseDescriptor(paths.descriptor, text);
  const keys = await loadKeys(keyDirectory, false);
  checkFingerprints(keys, descriptor.keys, keyDirectory, paths.root);
  return { id: descriptor.id, keys };
}

async function createIdentity(
  paths: StorePaths,
  keyDirectory: string,
): Promise<{ id: string; keys: StoreKeys }> {
  if ((await readdir(paths.packs)).length > 0 || (await readdir(paths.snapshots)).length > 0)
    throw new CairnError(
      'environment',
      'store-damaged',
      `${paths.root} has packs or snapshots, but ${paths.descriptor} is missing`,
      { remedy: 'put store.json back from a backup, or name another directory' },
    );
  const keys = await loadKeys(keyDirectory, true);
  const descriptor: Descriptor = {
    format: 'cairn-store',
    version: formatVersion,
    id: randomBytes(16).toString('hex'),
    createdAt: new Date().toISOString(),
    keys: fingerprintsOf(keys),
  };
  await writeDurably(paths.descriptor, [Buffer.from(`${JSON.stringify(descriptor, null, 2)}\n`)]);
  return { id: descriptor.id, keys };
}

function parseDescriptor(path: string, text: string): Descriptor {
  let descriptor: Partial<Descriptor>;
  try {
    descriptor = JSON.parse(text);
    if (descriptor.format !== 'cairn-store') throw new Error('it does not describe a store');
  } catch (error) {
    throw new CairnError('environment', 'store-damaged', `cannot use ${path}: ${messageOf(error)}`, {
      remedy: 'put it back from a backup',
    });
  }
  if (descriptor.version !== formatVersion)
    throw new CairnError(
      'environment',
      'store-version',
      `${path} has the unknown format version ${String(descriptor.version)}`,
      { remedy: 'use the version of Cairn that wrote it' },
    );
  const { id, keys } = descriptor;
  if (typeof id !== 'string' || !/^[0-9a-f]{32}$/.test(id) || typeof keys !== 'object' || keys === null)
    throw new CairnError(
      'environment',
      'store-damaged',
      `cannot use ${path}: it lacks the identity or the keys`,
      {
        remedy: 'put it back from a backup',
      },
    );
  return descriptor as Descriptor;
}

/**
 * Makes the caller the only writer of the store, until disposed or dead: the kernel gives the lock back. Throws
 * `store-locked` (temporary).
 */
export function lockStore(paths: StorePaths): Disposable {
  const fd = openSync(paths.lock, 'a+', 0o600);
  try {
    if (!tryLockFile(fd)) {
      const holder = readFileSync(paths.lock, 'latin1').trim();
      throw new CairnError(
        'temporary',
        'store-locked',
        `the store ${paths.root} is in use by ${holder === '' ? 'another process' : `process ${holder}`}`,
        { remedy: 'there is one daemon for each store: stop the other one first' },
      );
    }
    noteHolder(fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}

function noteHolder(fd: number): void {
  try {
    ftruncateSync(fd, 0);
    writeSync(fd, `${process.pid}\n`);
  } catch {
    // Only for messages: a full file system must not keep the store from opening.
  }
}

/** Removes what a writer that died left unfinished. Only for the holder of the lock. Returns the paths. */
export async function removeUnfinished(paths: StorePaths): Promise<string[]> {
  const removed: string[] = [];
  const remove = async (path: string): Promise<void> => {
    await unlink(path);
    removed.push(path);
  };
  for (const name of await readdir(paths.incoming)) await remove(join(paths.incoming, name));
  const directories = [paths.root];
  for (const entry of await readdir(paths.snapshots, { withFileTypes: true }))
    if (entry.isDirectory()) directories.push(join(paths.snapshots, entry.name));
  for (const directory of directories)
    for (const name of await readdir(directory)) {
      if (name.startsWith('.') && name.endsWith(unfinishedSuffix)) await remove(join(directory, name));
      // A removal that was interrupted before it freed the space.
      if (name.endsWith('.removed')) await truncate(join(directory, name), 0);
    }
  return removed;
}

/** Chunks that turned out damaged: by pack identity (hexadecimal) the ordinals of their segments. */
export type DamagedSegments = Map<string, Set<number>>;

export async function readDamaged(paths: StorePaths): Promise<DamagedSegments> {
  if (!(await exists(paths.damaged))) return new Map();
  try {
    const raw = JSON.parse(await readFile(paths.damaged, 'utf8')) as Record<string, number[]>;
    return new Map(Object.entries(raw).map(([pack, ordinals]) => [pack, new Set(ordinals)]));
  } catch {
    // Only a hint: verification finds the damage again.
    return new Map();
  }
}

export async function writeDamaged(paths: StorePaths, damaged: DamagedSegments): Promise<void> {
  const raw = Object.fromEntries([...damaged].map(([pack, ordinals]) => [pack, [...ordinals]]));
  await writeDurably(paths.damaged, [Buffer.from(JSON.stringify(raw))]);
}
