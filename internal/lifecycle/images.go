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
	conflict := func(hint, format string, args ...any) (banger.Image, error) {
		return image, &banger.Error{Kind: banger.ErrConflict, Op: "delete image", Subject: image.Name, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if !m.basesInUse.TryLock() {
		return conflict("try again when it is made", "a VM is just being made")
	}
	defer m.basesInUse.Unlock()
	list, err := m.Store.List(ctx)
	if err != nil {
		return image, err
	}
	var users []string
	for _, vm := range list {
		if vm.ImageKey == image.Key {
			users = append(users, vm.Spec.Name)
		}
	}
	if len(users) > 0 {
		slices.Sort(users)
		return conflict("banger vm delete "+strings.Join(users, " "), "%s", plural(len(users), "VM uses it", "VMs use it")+": "+strings.Join(users, ", "))
	}
	if err := m.Images.Delete(image.Key); err != nil {
		return image, &banger.Error{Op: "delete image", Subject: image.Name, Err: err}
	}
	m.Log.InfoContext(ctx, "deleted", "image", image.Name, "key", image.Key)
	return image, nil
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
