package project

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// tomlFile is the form of .banger.toml.
type tomlFile struct {
	Image     string            `toml:"image"`
	VCPU      int64             `toml:"vcpu"`
	Memory    tomlSize          `toml:"memory"`
	DiskSize  tomlSize          `toml:"disk_size"`
	Net       banger.NetPolicy  `toml:"net"`
	AllowHost []uint16          `toml:"allow_host"`
	Ports     []string          `toml:"ports"`
	User      string            `toml:"user"`
	Workspace string            `toml:"workspace"`
	Volumes   []string          `toml:"volumes"`
	Env       map[string]string `toml:"env"`
	Commands  struct {
		Create []string `toml:"create"`
		Start  []string `toml:"start"`
	} `toml:"commands"`
	Sync []banger.FileSync `toml:"sync"`
}

// tomlKeys are all of them, for who writes another one.
var tomlKeys = []string{"image", "vcpu", "memory", "disk_size", "net", "allow_host", "ports", "user", "workspace", "volumes", "env", "commands.create", "commands.start",
	"sync.host", "sync.guest", "sync.mode"}

// tomlSize is a number of bytes that is written with a unit.
type tomlSize int64

// UnmarshalText reads what [banger.ParseSize] does.
func (s *tomlSize) UnmarshalText(text []byte) error {
	n, err := banger.ParseSize(string(text))
	*s = tomlSize(n)
	return err
}

// parseTOML reads a .banger.toml.
func parseTOML(name string, text []byte) (Settings, []string, error) {
	var f tomlFile
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&f)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := strict.Errors[0]
		key := strings.Join(first.Key(), ".")
		line, _ := first.Position()
		return Settings{}, nil, invalid(name, line, banger.DidYouMean(key, tomlKeys), fmt.Errorf("unknown key %.100q", key))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := bad.Position()
		err := error(bad)
		if len(bad.Key()) > 0 {
			err = fmt.Errorf("%s: %w", strings.Join(bad.Key(), "."), bad)
		}
		return Settings{}, nil, invalid(name, line, "", err)
	}
	if err != nil {
		return Settings{}, nil, invalid(name, 0, "", err)
	}
	s, err := f.settings()
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Settings{}, nil, invalid(name, 0, "", err)
	}
	s.note(name)
	return s, nil, nil
}

func (f *tomlFile) settings() (Settings, error) {
	s := Settings{Image: f.Image, VCPU: Size{N: f.VCPU}, Memory: Size{N: int64(f.Memory)}, Disk: Size{N: int64(f.DiskSize)}, Net: f.Net, HostPorts: f.AllowHost,
		User: f.User, Folder: f.Workspace, Env: f.Env, Volumes: f.Volumes, Copies: f.Sync}
	if s.Env == nil {
		s.Env = map[string]string{}
	}
	for _, text := range f.Ports {
		p, err := banger.ParsePublish(text)
		if err != nil {
			return s, fmt.Errorf("ports: %w", err)
		}
		s.Ports = append(s.Ports, Forward{Publish: p})
	}
	for _, l := range []struct {
		key   string
		lines []string
		to    *[]Command
	}{{KeyCreate, f.Commands.Create, &s.Create}, {KeyStart, f.Commands.Start, &s.Start}} {
		for i, line := range l.lines {
			if line == "" {
				return s, fmt.Errorf("%s[%d]: it is empty", l.key, i)
			}
			*l.to = append(*l.to, Command{Name: fmt.Sprintf("%s[%d]", l.key, i), Line: line})
		}
	}
	for _, port := range s.HostPorts {
		if port == 0 {
			return s, errors.New("allow_host: want ports from 1 to 65535")
		}
	}
	if len(f.Sync) > banger.MaxFileSync {
		return s, fmt.Errorf("%d entries of sync: want at most %d", len(f.Sync), banger.MaxFileSync)
	}
	return s, nil
}
