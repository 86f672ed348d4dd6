import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, messageOf, systemCode } from '../errors.ts';
import { ensureDirectory, writeDurably } from './durable-file.ts';

const secretBytes = 32;
const files = { data: 'data.key', hash: 'hash.key', signing: 'signing.key' } as const;

/** The secrets of a store. */
export interface StoreKeys {
  /** From which the key of every pack and manifest is derived. */
  data: Uint8Array<ArrayBuffer>;
  /** Names chunks: keyed BLAKE3. */
  hash: Uint8Array<ArrayBuffer>;
  /** Ed25519, signs manifests. */
  signing: KeyObject;
  verifying: KeyObject;
}

/** Tells keys apart without telling anything about them; kept in `store.json`. */
export interface KeyFingerprints {
  data: string;
  hash: string;
  /** SHA-256 of the public key (DER, SPKI), hexadecimal. */
  signing: string;
}

/**
 * Reads the keys from their directory. Creates those that are missing only if `create`, which is for a store that does not
 * exist yet. Throws `key-missing` or `key-damaged` (environment), naming the file.
 */
export async function loadKeys(directory: string, create: boolean): Promise<StoreKeys> {
  if (create) await ensureDirectory(directory);
  const data = await secret(join(directory, files.data), create);
  const hash = await secret(join(directory, files.hash), create);
  const path = join(directory, files.signing);
  const pem = await readOrCreate(path, create, () =>
    Buffer.from(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })),
  );
  try {
    const signing = createPrivateKey(pem);
    if (signing.asymmetricKeyType !== 'ed25519')
      throw new Error(`it is of type ${signing.asymmetricKeyType}`);
    return { data, hash, signing, verifying: createPublicKey(signing) };
  } catch (error) {
    throw damagedKey(path, messageOf(error), error);
  }
}

export function fingerprintsOf(keys: StoreKeys): KeyFingerprints {
  const mark = (key: Uint8Array): string =>
    createHmac('sha256', key).update('cairn key fingerprint v1').digest('hex').slice(0, 32);
  return {
    data: mark(keys.data),
    hash: mark(keys.hash),
    signing: createHash('sha256')
      .update(keys.verifying.export({ type: 'spki', format: 'der' }))
      .digest('hex'),
  };
}

/** Throws `key-wrong` (environment) for the first key that is not the one the store was written with. */
export function checkFingerprints(
  keys: StoreKeys,
  expected: KeyFingerprints,
  directory: string,
  store: string,
): void {
  const actual = fingerprintsOf(keys);
  for (const name of ['data', 'hash', 'signing'] as const) {
    if (actual[name] === expected[name]) continue;
    throw new CairnError(
      'environment',
      'key-wrong',
      `cannot open the store ${store}: ${join(directory, files[name])} is not the key it was written with`,
      { remedy: 'put the keys that belong to this store back from a backup' },
    );
  }
}

/** The two keys of one pack or manifest, derived from the data key and the random identity of that file. */
export interface FileKeys {
  /** AES-256-GCM. */
  encryption: Buffer;
  /** Keyed BLAKE3 for the parts that are not encrypted. */
  authentication: Buffer;
}

/** HKDF-SHA-256 (RFC 5869): salt = the 16 byte identity, info = `cairn PURPOSE v1`, 64 bytes. */
export function deriveFileKeys(
  dataKey: Uint8Array,
  identity: Uint8Array,
  purpose: 'pack' | 'manifest',
): FileKeys {
  const bytes = Buffer.from(hkdfSync('sha256', dataKey, identity, `cairn ${purpose} v1`, 64));
  return { encryption: bytes.subarray(0, 32), authentication: bytes.subarray(32) };
}

async function secret(path: string, create: boolean): Promise<Uint8Array<ArrayBuffer>> {
  const text = (
    await readOrCreate(path, create, () => Buffer.from(`${randomBytes(secretBytes).toString('hex')}\n`))
  ).toString('latin1');
  if (!/^[0-9a-f]{64}\n?$/.test(text)) throw damagedKey(path, 'it is not 64 hexadecimal digits');
  return new Uint8Array(Buffer.from(text.trim(), 'hex'));
}

async function readOrCreate(path: string, create: boolean, generate: () => Buffer): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT')
      throw new CairnError('environment', 'key-missing', `cannot read the key ${path}: ${messageOf(error)}`, {
        cause: error,
      });
    if (!create)
      throw new CairnError(
        'environment',
        'key-missing',
        `the key ${path} is missing; without it the snapshots of this store cannot be read`,
        { remedy: 'put the keys that belong to this store back from a backup', cause: error },
      );
  }
  const bytes = generate();
  await writeDurably(path, [bytes]);
  return bytes;
}

function damagedKey(path: string, what: string, cause?: unknown): CairnError {
  return new CairnError('environment', 'key-damaged', `the key ${path} cannot be used: ${what}`, {
    remedy: 'put the keys that belong to this store back from a backup',
    cause,
  });
}
