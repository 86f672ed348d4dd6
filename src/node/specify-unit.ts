import type { UnitRequest } from '../jobs/ports.ts';
import { rootFileSystemOf, unitSpecOf } from '../jobs/unit-spec.ts';
import { defaultCapabilities } from '../units/bundle.ts';
import { loadImage } from '../units/oci-image.ts';
import type { UnitSpec } from '../units/spec.ts';
import { resolveUser } from '../units/users.ts';

/**
 * Turns a job into what its unit is made of: unpacks its image, if it has one, and looks the user up in its root file system. Errors:
 * those of `unitSpecOf`, `user-unknown`, and those of images.
 */
export async function specifyUnit(job: UnitRequest, imageDirectory: string): Promise<UnitSpec> {
  const root = rootFileSystemOf(job.description);
  const image = root.kind === 'oci' ? await loadImage(imageDirectory, root.path, root.reference) : undefined;
  const rootfs = image?.rootfs ?? (root.kind === 'directory' ? root.path : '/');
  const user = resolveUser(rootfs, job.description.user ?? (image?.config.user || '0'));
  return unitSpecOf(job, { defaultCapabilities, image: image?.config, user });
}
