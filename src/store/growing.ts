type Column =
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>;

/** The array itself if it has `wanted` elements, else a copy half as large again. */
export function grown<T extends Column>(array: T, wanted: number): T {
  if (wanted <= array.length) return array;
  const length = Math.max(wanted, Math.ceil(array.length * 1.5));
  const larger = new (array.constructor as new (length: number) => T)(length);
  larger.set(array);
  return larger;
}
