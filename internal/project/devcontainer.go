package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"

	"banger"
)

// instead says for each property that banger does not follow what happens in its place. Nothing at all is said of those in ignored.
var instead = map[string]string{
	"build":                       noBuild,
	"dockerFile":                  noBuild,
	"dockerComposeFile":           "no containers are composed: the VM is one machine, in which docker compose can run",
	"features":                    "they are not installed: onCreateCommand can install what is needed, or an image can have it",
	"runArgs":                     "they are options of docker, and there is no container",
	"initializeCommand":           "it never runs: it would run on this computer",
	"postAttachCommand":           "it does not run",
	"privileged":                  "not needed: who is root in a VM may do everything there",
	"capAdd":                      "not needed: who is root in a VM may do everything there",
	"securityOpt":                 "not needed: the VM has a kernel of its own",
	"workspaceMount":              "nothing of this computer is mounted: the repository goes in as a copy",
	"appPort":                     "use forwardPorts",
	"secrets":                     "they are not asked for: vm run --env NAME passes on one of yours",
	"hostRequirements.gpu":        "VMs have none",
	"overrideFeatureInstallOrder": "",
}

const noBuild = `no image is built: "docker build", then "docker save IMAGE | banger image import - --name NAME" and --image NAME`

// ignored is about editors, or about containers in ways that make no difference to a VM.
var ignored = []string{"$schema", "name", "customizations", "settings", "extensions", "devPort", "portsAttributes", "otherPortsAttributes", "shutdownAction",
	"overrideCommand", "waitFor", "userEnvProbe", "updateRemoteUserUID", "init", "context", "service", "runServices", "overrideFeatureInstallOrder"}

// devcontainer collects what one file says.
type devcontainer struct {
	Settings
	notices       []string
	containerUser string
	remoteEnv     map[string]string
	first         map[string][]Command // of the commands that run once, by property
}

// properties are those that are followed.
var properties = map[string]func(*devcontainer, *hujson.Value) error{
	"image": func(d *devcontainer, v *hujson.Value) error {
		d.Registry = true
		return decode(v, &d.Image)
	},
	"containerEnv":         func(d *devcontainer, v *hujson.Value) error { return decode(v, &d.Env) },
	"remoteEnv":            (*devcontainer).readRemoteEnv,
	"forwardPorts":         (*devcontainer).readPorts,
	"workspaceFolder":      func(d *devcontainer, v *hujson.Value) error { return decode(v, &d.Folder) },
	"remoteUser":           func(d *devcontainer, v *hujson.Value) error { return decode(v, &d.User) },
	"containerUser":        func(d *devcontainer, v *hujson.Value) error { return decode(v, &d.containerUser) },
	"onCreateCommand":      func(d *devcontainer, v *hujson.Value) error { return d.readCommand("onCreateCommand", v) },
	"updateContentCommand": func(d *devcontainer, v *hujson.Value) error { return d.readCommand("updateContentCommand", v) },
	"postCreateCommand":    func(d *devcontainer, v *hujson.Value) error { return d.readCommand("postCreateCommand", v) },
	"postStartCommand":     func(d *devcontainer, v *hujson.Value) error { return d.readCommand("postStartCommand", v) },
	"hostRequirements":     (*devcontainer).readRequirements,
	"mounts":               (*devcontainer).readMounts,
}

// parseDevcontainer reads a devcontainer.json: JSON with comments and commas at the end of lists.
func parseDevcontainer(name string, text []byte) (Settings, []string, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	value, err := hujson.Parse(append(slices.Clone(text), '\n')) // a comment ends with its line
	if err != nil {
		return Settings{}, nil, invalid(name, 0, "", errors.New(strings.TrimPrefix(err.Error(), "hujson: ")))
	}
	object, ok := value.Value.(*hujson.Object)
	if !ok {
		return Settings{}, nil, invalid(name, 0, "", errors.New("want an object: { … }"))
	}
	d := &devcontainer{first: map[string][]Command{}}
	seen := map[string]bool{}
	for i := range object.Members {
		member := &object.Members[i]
		key := member.Name.Value.(hujson.Literal).String()
		line := 1 + bytes.Count(text[:min(member.Name.StartOffset, len(text))], []byte("\n"))
		if seen[key] {
			return Settings{}, nil, invalid(name, line, "", fmt.Errorf("%.100q is there twice", key))
		}
		seen[key] = true
		if err := d.property(key, &member.Value); err != nil {
			return Settings{}, nil, invalid(name, line, "", fmt.Errorf("%.100s: %w", key, err))
		}
	}
	if err := d.finish(); err != nil {
		return Settings{}, nil, invalid(name, 0, "", err)
	}
	d.note(name)
	for i := range d.notices {
		d.notices[i] = name + ": " + d.notices[i]
	}
	return d.Settings, d.notices, nil
}

func (d *devcontainer) property(key string, v *hujson.Value) error {
	if read, ok := properties[key]; ok {
		return read(d, v)
	}
	if slices.Contains(ignored, key) {
		return nil
	}
	if text, ok := instead[key]; ok {
		d.tell("%s: %s", key, text)
		return nil
	}
	hint := banger.DidYouMean(key, slices.Collect(maps.Keys(properties)))
	if hint != "" && strings.HasPrefix(hint, "did you mean") {
		hint = " (" + hint + ")"
	} else {
		hint = ""
	}
	d.tell("%.100q is not known and does nothing%s", key, hint)
	return nil
}

func (d *devcontainer) tell(format string, args ...any) {
	d.notices = append(d.notices, fmt.Sprintf(format, args...))
}

// finish puts together what stands in several properties.
func (d *devcontainer) finish() error {
	if d.User == "" {
		d.User = d.containerUser
	}
	if d.Env = joined(d.Env, d.remoteEnv); d.Env == nil {
		d.Env = map[string]string{}
	}
	for _, key := range []string{"onCreateCommand", "updateContentCommand", "postCreateCommand"} {
		d.Create = append(d.Create, d.first[key]...)
	}
	d.Start = d.first["postStartCommand"]
	return d.check()
}

// decode reads one value in plain JSON.
func decode(v *hujson.Value, to any) error {
	plain := v.Clone()
	plain.Standardize()
	err := json.Unmarshal(plain.Pack(), to)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		what := map[string]string{"string": "a text", "map[string]string": "an object of texts"}[wrong.Type.String()]
		if what == "" {
			what = "something else"
		}
		return fmt.Errorf("it is a JSON %s, want %s", wrong.Value, what)
	}
	return err
}

// readRemoteEnv reads variables of which null means that it is unset, which only an image's own could be.
func (d *devcontainer) readRemoteEnv(v *hujson.Value) error {
	var env map[string]*string
	if err := decode(v, &env); err != nil {
		return errors.New("want an object of texts")
	}
	d.remoteEnv = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if env[name] == nil {
			d.tell("remoteEnv.%.100s: null unsets nothing", name)
			continue
		}
		d.remoteEnv[name] = *env[name]
	}
	return nil
}

func (d *devcontainer) readPorts(v *hujson.Value) error {
	var list []any
	if err := decode(v, &list); err != nil {
		return errors.New("want a list of numbers")
	}
	for _, entry := range list {
		text := fmt.Sprint(entry)
		if number, ok := entry.(float64); ok {
			text = strconv.FormatFloat(number, 'f', -1, 64)
		}
		host, port, named := strings.Cut(text, ":")
		if !named {
			host, port = "localhost", text
		}
		if host != "localhost" && host != "127.0.0.1" {
			d.tell("forwardPorts %.100q: only ports of the VM itself are forwarded", text)
			continue
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%.100q: want 1 to 65535", text)
		}
		if forward := forwardPort(uint16(n)); !slices.Contains(d.Ports, forward) {
			d.Ports = append(d.Ports, forward)
		}
	}
	return nil
}

// readCommand reads a line for a shell, a list of arguments, or an object of several such, which run in its order.
func (d *devcontainer) readCommand(name string, v *hujson.Value) error {
	if object, ok := v.Value.(*hujson.Object); ok {
		for i := range object.Members {
			member := &object.Members[i]
			key := member.Name.Value.(hujson.Literal).String()
			if member.Value.Value.Kind() == '{' {
				return fmt.Errorf("%.100s: want a text or a list of texts", key)
			}
			if err := d.readCommand(name+"."+key, &member.Value); err != nil {
				return err
			}
		}
		return nil
	}
	cmd := Command{Name: name}
	var err error
	switch v.Value.Kind() {
	case 'n':
		return nil
	case '[':
		if err = decode(v, &cmd.Argv); err == nil && len(cmd.Argv) > 0 && cmd.Argv[0] == "" {
			err = errors.New("the name of the program is empty")
		}
	default:
		err = decode(v, &cmd.Line)
	}
	if err != nil {
		return err
	}
	if cmd.Line != "" || len(cmd.Argv) > 0 {
		first, _, _ := strings.Cut(name, ".")
		d.first[first] = append(d.first[first], cmd)
	}
	return nil
}

// readRequirements takes them as the least that is of use.
func (d *devcontainer) readRequirements(v *hujson.Value) error {
	var want struct {
		CPUs    float64         `json:"cpus"`
		Memory  json.RawMessage `json:"memory"`
		Storage json.RawMessage `json:"storage"`
		GPU     json.RawMessage `json:"gpu"`
	}
	if err := decode(v, &want); err != nil {
		return errors.New(`want an object such as { "cpus": 2, "memory": "4gb" }`)
	}
	if want.CPUs < 0 || want.CPUs > banger.MaxVCPU {
		return fmt.Errorf("cpus %v: want 1 to %d", want.CPUs, banger.MaxVCPU)
	}
	d.VCPU = Size{N: int64(math.Ceil(want.CPUs)), AtLeast: true}
	for _, size := range []struct {
		name  string
		text  json.RawMessage
		to    *Size
		least int64
	}{{"memory", want.Memory, &d.Memory, banger.MinMemoryMiB << 20}, {"storage", want.Storage, &d.Disk, banger.MinDiskBytes}} {
		text := string(size.text)
		if quoted := ""; json.Unmarshal(size.text, &quoted) == nil {
			text = quoted
		}
		if text == "" {
			continue
		}
		bytes, err := banger.ParseSize(text)
		if err != nil {
			return fmt.Errorf("%s: %w", size.name, err)
		}
		*size.to = Size{N: max(bytes, size.least), AtLeast: true}
	}
	if len(want.GPU) > 0 && string(want.GPU) != "false" && string(want.GPU) != `"optional"` {
		d.tell("hostRequirements.gpu: %s", instead["hostRequirements.gpu"])
	}
	return nil
}

// readMounts takes volumes as directories of the VM, whose disk keeps them, and binds as copies.
func (d *devcontainer) readMounts(v *hujson.Value) error {
	var list []json.RawMessage
	if err := decode(v, &list); err != nil {
		return errors.New("want a list")
	}
	for _, raw := range list {
		mount, err := parseMount(raw)
		if err != nil {
			return err
		}
		switch {
		case mount["target"] == "":
			return errors.New("one has no target")
		case mount["type"] == "volume":
			d.Volumes = append(d.Volumes, mount["target"])
		case mount["type"] == "bind":
			if err := d.bind(mount); err != nil {
				return err
			}
		default:
			d.tell("mounts: there is no %.40q for %.100s", mount["type"], mount["target"])
		}
	}
	return nil
}

// bind copies what a container would have mounted.
func (d *devcontainer) bind(mount map[string]string) error {
	if path.Ext(mount["source"]) == ".sock" {
		d.tell("mounts: %.100s: a socket of this computer can't be had in a VM", mount["source"])
		return nil
	}
	if len(d.Copies) == banger.MaxFileSync {
		return fmt.Errorf("more than %d of kind bind", banger.MaxFileSync)
	}
	d.Copies = append(d.Copies, banger.FileSync{Host: mount["source"], Guest: mount["target"]})
	d.tell("mounts: %.100s: nothing of this computer is mounted: it is copied, at each start", mount["source"])
	return nil
}

// parseMount reads "type=volume,source=x,target=/y" or the same as an object.
func parseMount(raw json.RawMessage) (map[string]string, error) {
	mount := map[string]string{}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		for part := range strings.SplitSeq(text, ",") {
			key, value, _ := strings.Cut(part, "=")
			mount[strings.TrimSpace(key)] = value
		}
	} else {
		var object map[string]any
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, errors.New("want texts or objects")
		}
		for key, value := range object {
			mount[key] = fmt.Sprint(value)
		}
	}
	for short, long := range map[string]string{"src": "source", "dst": "target", "destination": "target"} {
		if mount[long] == "" {
			mount[long] = mount[short]
		}
	}
	if mount["type"] == "" {
		mount["type"] = "volume" // as docker has it
	}
	return mount, nil
}
