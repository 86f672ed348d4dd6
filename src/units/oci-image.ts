export async function loadImage(_d: string, _p: string, _r?: string): Promise<{ rootfs: string }> {
  throw new Error('not yet');
}
