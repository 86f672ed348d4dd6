import { CairnError } from '../errors.ts';

/** As a regular expression for JSON Schema: a number of bytes with an optional unit. */
export const bytesPattern = '^[0-9]+(\\.[0-9]+)?\\s*([kKmMgGtT]([iI]?[bB])?|[bB])?$';

/** As a regular expression for JSON Schema: one or more numbers with units of time. */
export const durationPattern = '^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d))+$|^[0-9]+(\\.[0-9]+)?$';

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
};
const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * Bytes from `512m`, `1.5GiB`, `64kb` or `4096`; units are powers of 1024, as for docker. `what` names the value in the error
 * `quantity-invalid`.
 */
export function parseBytes(text: string, what: string): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])(?:i?b)?|b)?$/i.exec(text.trim());
  const unit = byteUnits[(match?.[2] ?? '').toLowerCase()];
  if (match?.[1] === undefined || unit === undefined) {
    throw new CairnError('argument', 'quantity-invalid', `${what}: "${text}" is not a number of bytes.`, {
      remedy: 'Write a number with an optional unit: 4096, 64k, 512m, 1.5g.',
    });
  }
  return Math.round(Number(match[1]) * unit);
}

/**
 * Milliseconds from `30s`, `1h30m`, `250ms`, `2d`; a bare number means seconds, as for docker. `what` names the value in the error
 * `quantity-invalid`.
 */
export function parseDuration(text: string, what: string): number {
  const trimmed = text.trim();
  if (/^[0-9]+(\.[0-9]+)?$/.test(trimmed)) return Math.round(Number(trimmed) * 1000);
  let total = 0;
  let rest = trimmed;
  while (rest !== '') {
    const match = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)/.exec(rest);
    const unit = durationUnits[match?.[2] ?? ''];
    if (match?.[1] === undefined || unit === undefined) break;
    total += Number(match[1]) * unit;
    rest = rest.slice(match[0].length);
  }
  if (rest !== '' || trimmed === '') {
    throw new CairnError('argument', 'quantity-invalid', `${what}: "${text}" is not a length of time.`, {
      remedy: 'Write a number with a unit: 250ms, 30s, 10m, 1h30m, 2d.',
    });
  }
  return Math.round(total);
}
