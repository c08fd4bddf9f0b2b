package banger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// SpecChange changes a VM's spec. What is nil stays as it is; a variable or label that is nil goes.
type SpecChange struct {
	VCPU      *int               `json:"vcpu,omitempty"`         // absent: as it is
	MemoryMiB *int               `json:"memory_mib,omitempty"`   // absent: as it is
	DiskBytes *int64             `json:"disk_bytes,omitempty"`   // grows only
	StopIdle  *time.Duration     `json:"stop_idle_ns,omitempty"` // 0: never stopped for idleness; absent: as it is
	TTL       *time.Duration     `json:"ttl_ns,omitempty"`       // from now on, 0: never deleted; of the VM, not of its spec
	Env       map[string]*string `json:"env,omitempty"`          // variables by name; null: it goes; those that are not named stay
	Labels    map[string]*string `json:"labels,omitempty"`       // labels by key, likewise
	// RemoveSync names, by their path on the host as the spec has it, files of the host's user that the VM gets no copies of any more.
	RemoveSync []string `json:"remove_sync,omitempty"`
}

// IsZero tells whether nothing changes.
func (c SpecChange) IsZero() bool {
	return c.VCPU == nil && c.MemoryMiB == nil && c.DiskBytes == nil && c.StopIdle == nil && c.TTL == nil && len(c.Env) == 0 && len(c.Labels) == 0 &&
		len(c.RemoveSync) == 0
}

// Apply gives the changed spec and leaves s alone.
func (c SpecChange) Apply(s VMSpec) VMSpec {
	s.VCPU = *cmp.Or(c.VCPU, &s.VCPU)
	s.MemoryMiB = *cmp.Or(c.MemoryMiB, &s.MemoryMiB)
	s.DiskBytes = *cmp.Or(c.DiskBytes, &s.DiskBytes)
	s.StopIdle = *cmp.Or(c.StopIdle, &s.StopIdle)
	s.Env = changed(s.Env, c.Env)
	s.Labels = changed(s.Labels, c.Labels)
	if left, removed := c.split(s.Sync); removed != nil {
		s.Sync = left
	}
	return s
}

// split tells which of a VM's entries stay and which go; nil is none.
func (c SpecChange) split(list []FileSync) (left, removed []FileSync) {
	for _, f := range list {
		if slices.Contains(c.RemoveSync, f.Host) {
			removed = append(removed, f)
		} else {
			left = append(left, f)
		}
	}
	return left, removed
}

// changed gives a copy of m with changes, nil when nothing is left.
func changed(m map[string]string, changes map[string]*string) map[string]string {
	if len(changes) == 0 {
		return m
	}
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	for key, value := range changes {
		if value == nil {
			delete(m, key)
		} else {
			m[key] = *value
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// And is c followed by next, as far as it changes anything about s.
func (c SpecChange) And(next SpecChange, s VMSpec) SpecChange {
	var gone []string
	_, removed := SpecChange{RemoveSync: slices.Concat(c.RemoveSync, next.RemoveSync)}.split(s.Sync)
	for _, f := range removed {
		if !slices.Contains(gone, f.Host) {
			gone = append(gone, f.Host)
		}
	}
	return SpecChange{
		RemoveSync: gone,

		VCPU:      differing(cmp.Or(next.VCPU, c.VCPU), s.VCPU),
		MemoryMiB: differing(cmp.Or(next.MemoryMiB, c.MemoryMiB), s.MemoryMiB),
		DiskBytes: differing(cmp.Or(next.DiskBytes, c.DiskBytes), s.DiskBytes),
		StopIdle:  differing(cmp.Or(next.StopIdle, c.StopIdle), s.StopIdle),
		Env:       differingKeys(c.Env, next.Env, s.Env),
		Labels:    differingKeys(c.Labels, next.Labels, s.Labels),
	}
}

func differing[T comparable](value *T, now T) *T {
	if value == nil || *value == now {
		return nil
	}
	return value
}

func differingKeys(first, then map[string]*string, now map[string]string) map[string]*string {
	all := map[string]*string{}
	maps.Copy(all, first)
	maps.Copy(all, then)
	maps.DeleteFunc(all, func(key string, value *string) bool {
		old, ok := now[key]
		return value == nil && !ok || value != nil && ok && *value == old
	})
	if len(all) == 0 {
		return nil
	}
	return all
}

// FieldChange is one change as people see it. The values of variables are left out: they may be secrets.
type FieldChange struct {
	Field string `json:"field"` // "vcpu", "memory", "disk", "stop idle", "env NAME", "label KEY", "sync HOST", "deleted" (when that will be)
	From  string `json:"from"`  // "-" when there is none; of a variable "(set)", never its value
	To    string `json:"to"`    // likewise
}

// Fields lists what changes about s, in a fixed order.
func (c SpecChange) Fields(s VMSpec) []FieldChange {
	after := c.Apply(s)
	list := []FieldChange{}
	add := func(field, from, to string) {
		if from != to {
			list = append(list, FieldChange{field, from, to})
		}
	}
	add("vcpu", fmt.Sprint(s.VCPU), fmt.Sprint(after.VCPU))
	add("memory", fmt.Sprintf("%d MiB", s.MemoryMiB), fmt.Sprintf("%d MiB", after.MemoryMiB))
	if s.DiskBytes != after.DiskBytes { // sizes that differ may look the same
		list = append(list, FieldChange{"disk", FormatSize(s.DiskBytes), FormatSize(after.DiskBytes)})
	}
	add("stop idle", FormatDuration(s.StopIdle), FormatDuration(after.StopIdle))
	for _, name := range sortedKeys(c.Env) {
		list = append(list, FieldChange{"env " + name, hidden(s.Env, name), hidden(after.Env, name)})
	}
	for _, key := range sortedKeys(c.Labels) {
		from, to := labelText(s.Labels, key), labelText(after.Labels, key)
		add("label "+key, from, to)
	}
	_, removed := c.split(s.Sync)
	for _, f := range removed {
		list = append(list, FieldChange{"sync " + f.Host, f.String(), "-"})
	}
	return list
}

func hidden(env map[string]string, name string) string {
	if _, ok := env[name]; !ok {
		return "-"
	}
	return "(set)"
}

func labelText(labels map[string]string, key string) string {
	value, ok := labels[key]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%q", value)
}
