package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"banger"
)

// DeleteImage removes the base that ref, a name or the beginning of a key, stands for.
// Errors: ErrNotFound; ErrConflict while a VM has its disk on it, or is just being made.
func (m *Manager) DeleteImage(ctx context.Context, ref string) (banger.Image, error) {
	image, err := m.Images.Resolve(ref)
	if err != nil {
		return image, err
	}
	unused, err := m.unused(ctx, "delete image", image.Name, func(vm banger.VM) bool { return vm.ImageKey == image.Key })
	if err != nil {
		return image, err
	}
	defer unused()
	if err := m.Images.Delete(image.Key); err != nil {
		return image, &banger.Error{Op: "delete image", Subject: image.Name, Err: err}
	}
	m.Log.InfoContext(ctx, "deleted", "image", image.Name, "key", image.Key)
	return image, nil
}

// DeleteKernel removes a kernel. Errors: ErrNotFound; ErrConflict while a VM boots by it, or a VM is just being made.
func (m *Manager) DeleteKernel(ctx context.Context, name string) (banger.Kernel, error) {
	unused, err := m.unused(ctx, "delete kernel", name, func(vm banger.VM) bool { return vm.Kernel == name })
	if err != nil {
		return banger.Kernel{}, err
	}
	defer unused()
	kernel, err := m.Kernels.Delete(ctx, name)
	if err != nil {
		return kernel, err
	}
	m.Log.InfoContext(ctx, "deleted", "kernel", name)
	return kernel, nil
}

// unused finds out that no VM uses a thing, and keeps new ones from doing so until done is called.
// Errors: ErrConflict that names those that do.
func (m *Manager) unused(ctx context.Context, op, name string, uses func(banger.VM) bool) (done func(), err error) {
	conflict := func(hint, format string, args ...any) error {
		return &banger.Error{Kind: banger.ErrConflict, Op: op, Subject: name, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if !m.basesInUse.TryLock() {
		return nil, conflict("try again when it is made", "a VM is just being made")
	}
	defer func() {
		if err != nil {
			m.basesInUse.Unlock()
		}
	}()
	list, err := m.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, vm := range list {
		if uses(vm) {
			users = append(users, vm.Spec.Name)
		}
	}
	if len(users) == 0 {
		return m.basesInUse.Unlock, nil
	}
	slices.Sort(users)
	return nil, conflict("banger vm delete "+strings.Join(users, " "), "%s", plural(len(users), "VM uses it", "VMs use it")+": "+strings.Join(users, ", "))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// environment is what commands get: the image's, and over it the VM's.
func environment(image banger.Image, own map[string]string) map[string]string {
	if image.Config == nil {
		return own
	}
	env := map[string]string{}
	for _, assignment := range image.Config.Env {
		name, value, _ := strings.Cut(assignment, "=")
		env[name] = value
	}
	maps.Copy(env, own)
	return env
}

// userOf is whom commands run as: the VM's choice, else the image's without the name of a group, else root.
func userOf(image banger.Image, own string) string {
	if own != "" || image.Config == nil {
		return own
	}
	user, group, ok := strings.Cut(image.Config.User, ":")
	_, uidErr := strconv.ParseUint(user, 10, 32)
	_, gidErr := strconv.ParseUint(group, 10, 32)
	if ok && errors.Join(uidErr, gidErr) == nil {
		return image.Config.User
	}
	return user
}
