/** A configuration never changes once it was read; what changes is which configuration is in force. */

/**
 * Freezes a value and everything in it. Bytes stay as they are: the language cannot freeze them.
 *
 * @returns the same value
 */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) {
    return value;
  }
  Object.freeze(value);
  for (const inner of Object.values(value)) deepFreeze(inner);
  return value;
}
