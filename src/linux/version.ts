/** The first dotted number in a text (`runc version 1.3.6+ds1` → `1.3.6`), or `undefined`. */
export function parseVersion(text: string): string | undefined {
  return /\d+(?:\.\d+)+/.exec(text)?.[0];
}

/** Orders dotted numbers: negative when `a` is older than `b`. Missing parts count as 0; what follows the number is ignored. */
export function compareVersions(a: string, b: string): number {
  const left = numbersOf(a);
  const right = numbersOf(b);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Whether `version` is `minimum` or newer. */
export function atLeast(version: string, minimum: string): boolean {
  return compareVersions(version, minimum) >= 0;
}

function numbersOf(version: string): number[] {
  const match = /^\d+(?:\.\d+)*/.exec(version);
  if (match === null) throw new RangeError(`not a version: ${JSON.stringify(version)}`);
  return match[0].split('.').map(Number);
}
