package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"banger"
	"banger/internal/project"
)

// wished is what "vm run --dry-run" tells of a repository's files.
type wished struct {
	Files    []project.File    `json:"files"`    // that were read
	Settings []wishedSetting   `json:"settings"` // those that the files have, and the defaults in place of the others
	Needs    []project.Need    `json:"needs"`    // that want consent
	Missing  []project.Need    `json:"missing"`  // those of them that are not allowed yet
	Commands []project.Command `json:"commands"` // in the order in which they would run: those of a new VM, then those of each start
	Notices  []string          `json:"notices"`  // for people: what of the files is not followed, and why
}

// wishedSetting is one value, with its variables as they stand in the file, and where it comes from.
type wishedSetting struct {
	Key   string `json:"key"`   // "memory", "env.NAME"
	Value string `json:"value"` // for people, lists with commas between
	From  string `json:"from"`  // the repository's file, or where the default comes from as in Setting
}

// shown gives nil when there are no files and nothing to tell.
func (w *wish) shown() *wished {
	if len(w.Files)+len(w.Notices) == 0 {
		return nil
	}
	s := w.Settings
	list := wished{Files: append([]project.File{}, w.Files...), Settings: []wishedSetting{}, Needs: append([]project.Need{}, w.needs...),
		Missing: append([]project.Need{}, w.missing...), Commands: slices.Concat([]project.Command{}, s.Create, s.Start), Notices: append([]string{}, w.Notices...)}
	if len(w.Files) == 0 { // only something to tell
		return &list
	}
	for _, l := range []struct {
		key, value string
		size       project.Size
		fallback   string // key of the configuration
	}{
		{key: project.KeyImage, value: s.ImageRef(), fallback: "images.default"},
		{project.KeyVCPU, fmt.Sprint(s.VCPU.N), s.VCPU, "vm_defaults.vcpu"},
		{project.KeyMemory, banger.FormatSize(s.Memory.N), s.Memory, "vm_defaults.memory"},
		{project.KeyDisk, banger.FormatSize(s.Disk.N), s.Disk, "vm_defaults.disk_size"},
		{key: project.KeyNet, value: project.Network(s.Net, w.host.Net).String(), fallback: "vm_defaults.net"},
		{key: project.KeyHostPorts, value: joinAll(s.HostPorts)},
		{key: project.KeyUser, value: s.User},
		{key: project.KeyFolder, value: s.Folder},
		{key: project.KeyPorts, value: joinAll(s.Ports)},
		{key: project.KeyVolumes, value: strings.Join(s.Volumes, ", ")},
		{key: project.KeyCopies, value: joinAll(s.Copies)},
	} {
		from, def := s.From[l.key], setting(w.defaults, l.fallback)
		switch {
		case l.size.N != 0 && l.size.Of(sizeOf(w.defaults, l.fallback)) == 0, from == "" && l.fallback != "":
			l.value, from = def.Value, def.From
		case from == "":
			continue
		}
		list.Settings = append(list.Settings, wishedSetting{l.key, l.value, from})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		key := project.KeyEnv + "." + name
		list.Settings = append(list.Settings, wishedSetting{key, s.Env[name], s.From[key]})
	}
	return &list
}

func joinAll[T any](list []T) string {
	var texts []string
	for _, one := range list {
		text := fmt.Sprint(one)
		if f, ok := any(one).(banger.FileSync); ok {
			text = f.Host + " → " + f.Guest
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// tell shows it to a person.
func (w *wished) tell(a *app) {
	if w == nil {
		return
	}
	for _, s := range w.Settings {
		a.notice("%s = %s (%s)", s.Key, s.Value, s.From)
	}
	for _, cmd := range w.Commands {
		a.notice("runs in the VM: %s (%s)", cmd, cmd.Name)
	}
	for _, notice := range w.Notices {
		a.notice("%s", notice)
	}
	for _, need := range w.Needs {
		allowed := "allowed"
		if slices.Contains(w.Missing, need) {
			allowed = "not allowed yet: banger allow"
		}
		a.notice("%s (%s, %s)", need, need.File, allowed)
	}
}
