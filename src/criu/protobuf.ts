/**
 * The wire format of protocol buffers, as much as CRIU's images use of it.
 *
 * A message stays a list of fields in the order in which they came, so that fields Cairn does not know survive a rewrite.
 */

import { CairnError } from '../errors.ts';

/** Wire types: 0 variable-length integer, 1 eight bytes, 2 length and bytes, 5 four bytes. */
export interface Field {
  number: number;
  wire: 0 | 1 | 2 | 5;
  /** Integers as they are on the wire (unsigned), bytes as a view of the message. */
  value: bigint | Uint8Array;
}

/** A decoded message. Getters return `undefined` (or nothing) for fields that are absent. */
export class Message {
  readonly fields: Field[];

  constructor(fields: Field[] = []) {
    this.fields = fields;
  }

  #last(number: number): Field | undefined {
    return this.fields.findLast((field) => field.number === number);
  }

  /** An unsigned integer as a number. */
  uint(number: number): number | undefined {
    const value = this.uint64(number);
    return value === undefined ? undefined : Number(value);
  }

  uint64(number: number): bigint | undefined {
    const value = this.#last(number)?.value;
    return typeof value === 'bigint' ? value : undefined;
  }

  /** An int32 or int64 field (negative numbers are ten bytes long on the wire). */
  int(number: number): number | undefined {
    const value = this.uint64(number);
    return value === undefined ? undefined : Number(BigInt.asIntN(64, value));
  }

  bool(number: number): boolean | undefined {
    const value = this.uint64(number);
    return value === undefined ? undefined : value !== 0n;
  }

  bytes(number: number): Uint8Array | undefined {
    const value = this.#last(number)?.value;
    return value instanceof Uint8Array ? value : undefined;
  }

  text(number: number): string | undefined {
    const value = this.bytes(number);
    return value === undefined ? undefined : Buffer.from(value).toString('utf8');
  }

  message(number: number): Message | undefined {
    const value = this.bytes(number);
    return value === undefined ? undefined : decodeMessage(value);
  }

  messages(number: number): Message[] {
    return this.fields
      .filter((field) => field.number === number && field.value instanceof Uint8Array)
      .map((field) => decodeMessage(field.value as Uint8Array));
  }

  /** A repeated integer, packed or not. */
  uints(number: number): bigint[] {
    const values: bigint[] = [];
    for (const field of this.fields) {
      if (field.number !== number) continue;
      if (typeof field.value === 'bigint') values.push(field.value);
      else {
        for (let at = 0; at < field.value.length; ) {
          const { value, next } = readVarint(field.value, at);
          values.push(value);
          at = next;
        }
      }
    }
    return values;
  }

  /** Replaces a field (all of its values) in place, or appends it; an integer or bytes. */
  set(number: number, value: number | bigint | boolean | string | Uint8Array): this {
    const field = toField(number, value);
    const at = this.fields.findIndex((existing) => existing.number === number);
    if (at < 0) this.fields.push(field);
    else {
      const rest = this.fields.slice(at + 1).filter((existing) => existing.number !== number);
      this.fields.splice(at, this.fields.length, field, ...rest);
    }
    return this;
  }

  /** Appends one more value of a repeated field. */
  add(number: number, value: number | bigint | boolean | string | Uint8Array): this {
    this.fields.push(toField(number, value));
    return this;
  }

  encode(): Uint8Array<ArrayBuffer> {
    const out: number[] = [];
    for (const { number, wire, value } of this.fields) {
      writeVarint(out, BigInt(number * 8 + wire));
      if (value instanceof Uint8Array) {
        writeVarint(out, BigInt(value.length));
        for (const byte of value) out.push(byte);
      } else if (wire === 0) writeVarint(out, value);
      else for (let i = 0n; i < (wire === 1 ? 8n : 4n); i++) out.push(Number((value >> (8n * i)) & 0xffn));
    }
    return Uint8Array.from(out);
  }
}

function toField(number: number, value: number | bigint | boolean | string | Uint8Array): Field {
  if (typeof value === 'string') return { number, wire: 2, value: Buffer.from(value) };
  if (value instanceof Uint8Array) return { number, wire: 2, value };
  return { number, wire: 0, value: BigInt.asUintN(64, BigInt(value)) };
}

function readVarint(bytes: Uint8Array, start: number): { value: bigint; next: number } {
  let value = 0n;
  for (let at = start, shift = 0n; shift < 70n; at++, shift += 7n) {
    const byte = bytes[at];
    if (byte === undefined) throw damaged('a number is cut off');
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return { value: BigInt.asUintN(64, value), next: at + 1 };
  }
  throw damaged('a number is too long');
}

function writeVarint(out: number[], value: bigint): void {
  let rest = value;
  for (; rest >= 0x80n; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
  out.push(Number(rest));
}

/** Decodes one message. Throws `permanent` `image-damaged`. Values of bytes are views, not copies. */
export function decodeMessage(bytes: Uint8Array): Message {
  const fields: Field[] = [];
  for (let at = 0; at < bytes.length; ) {
    const key = readVarint(bytes, at);
    const number = Number(key.value >> 3n);
    const wire = Number(key.value & 7n);
    if (number === 0) throw damaged('a field has number 0');
    at = key.next;
    if (wire === 0) {
      const { value, next } = readVarint(bytes, at);
      fields.push({ number, wire, value });
      at = next;
    } else if (wire === 2) {
      const { value, next } = readVarint(bytes, at);
      at = next + Number(value);
      if (at > bytes.length) throw damaged(`field ${number} is cut off`);
      fields.push({ number, wire, value: bytes.subarray(next, at) });
    } else if (wire === 1 || wire === 5) {
      const length = wire === 1 ? 8 : 4;
      if (at + length > bytes.length) throw damaged(`field ${number} is cut off`);
      let value = 0n;
      for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i] ?? 0);
      fields.push({ number, wire, value });
      at += length;
    } else throw damaged(`field ${number} has the unknown wire type ${wire}`);
  }
  return new Message(fields);
}

function damaged(what: string): CairnError {
  return new CairnError('permanent', 'image-damaged', `Tried to decode a message of a CRIU image: ${what}.`);
}
