/**
 * GMAC (NIST SP 800-38D: AES-GCM over additional data alone), by the OpenSSL that is part of Node.js. Called directly: `createCipheriv`
 * makes several objects for each tag, which takes longer than the tag of 64 KiB.
 */

import { type Bytes, programFunction } from './libc.ts';

export const gmacKeyBytes = 16;
export const gmacTagBytes = 16;

type Functions = ReturnType<typeof bind>;
let functions: Functions | undefined;

function bind() {
  const pointer = 'void *';
  return {
    create: programFunction('EVP_CIPHER_CTX_new', [], 'uint64'),
    free: programFunction('EVP_CIPHER_CTX_free', ['uint64'], 'void'),
    cipher: programFunction('EVP_aes_128_gcm', [], 'uint64'),
    init: programFunction('EVP_EncryptInit_ex', ['uint64', 'uint64', 'uint64', pointer, pointer]),
    update: programFunction('EVP_EncryptUpdate', ['uint64', pointer, pointer, pointer, 'int32']),
    final: programFunction('EVP_EncryptFinal_ex', ['uint64', pointer, pointer]),
    control: programFunction('EVP_CIPHER_CTX_ctrl', ['uint64', 'int32', 'int32', pointer]),
  };
}

const EVP_CTRL_AEAD_GET_TAG = 0x10;
/**
 * Always the same, which GCM forbids for messages that an attacker sees: tags made here never leave the process, so that what remains is
 * GHASH with a secret key, whose tags of two different messages of n blocks are equal with a probability of at most n / 2^128.
 */
const nonce = new Uint8Array(12);
const length = new Int32Array(1);
const lengthBytes = new Uint8Array(length.buffer);
const nothing = new Uint8Array(16);

/** Tells whether bytes are the same as before without keeping them; see `nonce` for what the tags are good for, and what not. */
export class Gmac implements Disposable {
  /** The last tag, as four words; overwritten by the next. */
  readonly tag: Int32Array<ArrayBuffer> = new Int32Array(gmacTagBytes / 4);
  readonly #tagBytes = new Uint8Array(this.tag.buffer);
  readonly #functions: Functions;
  readonly #context: number;

  /** `key`: `gmacKeyBytes` secret bytes. */
  constructor(key: Uint8Array) {
    functions ??= bind();
    this.#functions = functions;
    this.#context = functions.create();
    this.#must(functions.init(this.#context, functions.cipher(), 0, key, nonce));
  }

  /** Sets `tag` to that of `bytes` (shared memory too). */
  compute(bytes: Bytes): void {
    const { init, update, final, control } = this.#functions;
    const context = this.#context;
    this.#must(init(context, 0, 0, null, nonce));
    this.#must(update(context, null, lengthBytes, bytes, bytes.byteLength));
    this.#must(final(context, nothing, lengthBytes));
    this.#must(control(context, EVP_CTRL_AEAD_GET_TAG, gmacTagBytes, this.#tagBytes));
  }

  #must(result: number): void {
    if (result !== 1) throw new Error('OpenSSL refused AES-128-GCM');
  }

  [Symbol.dispose](): void {
    this.#functions.free(this.#context);
  }
}
