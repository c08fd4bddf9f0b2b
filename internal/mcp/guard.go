package mcp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/api"
	"banger/internal/project"
	"banger/internal/workspace"
)

func refused(subject, hint, format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrRefused, Op: "mcp", Subject: subject, Err: fmt.Errorf(format, args...), Hint: hint}
}

// byAgent tells whether an agent has made a VM.
func byAgent(vm banger.VM) bool { return vm.Spec.Labels[Label] == Made }

func (s *Server) mayUse(vm banger.VM) bool {
	return byAgent(vm) || slices.Contains(s.cfg.VMs, vm.Spec.Name)
}

// vm gives a VM that the agent may use.
func (c *call) vm(ctx context.Context, ref string) (api.VMDetail, error) {
	if ref == "" {
		return api.VMDetail{}, banger.Invalidf("vm: no name given")
	}
	vm, err := c.Show(ctx, ref)
	if err == nil && !c.mayUse(vm.VM) {
		err = refused(vm.Spec.Name, "the user can allow it: banger mcp --allow-vm "+vm.Spec.Name, "it was not made by an agent")
	}
	return vm, err
}

// allowed refuses what an agent may not have of what it wishes for a VM. It gives the policy as it has to be set.
func (c *call) allowed(ctx context.Context, wish project.Settings, limit banger.NetPolicy) (banger.NetPolicy, error) {
	needs, def, err := c.Needs(ctx, wish, limit)
	if err != nil {
		return banger.NetPolicy{}, err
	}
	var texts []string
	for _, need := range needs {
		if need.Kind != project.NeedImage || !slices.Contains(c.cfg.Images, need.Value) {
			texts = append(texts, need.String())
		}
	}
	if len(texts) > 0 {
		return banger.NetPolicy{}, refused("", "the user can allow more: banger mcp --help, at --net, --allow-image and --allow-vm", "this goes beyond what agents may have: %s", strings.Join(texts, "; "))
	}
	if !wish.Net.Given {
		return limit, nil
	}
	return project.Network(wish.Net, def), nil
}

// inside tells whether a path without symbolic links is in a directory that agents may use.
func (s *Server) inside(path string) bool {
	return slices.ContainsFunc(s.cfg.Paths, func(dir string) bool {
		rel, err := filepath.Rel(dir, path)
		return err == nil && filepath.IsLocal(rel)
	})
}

// repository gives the path of a repository, or of a directory that is in none, that may go into a VM and get work back: it lies in an
// allowed directory, and so does its .git directory.
func (s *Server) repository(ctx context.Context, path string) (string, error) {
	no := func(what, path string) error {
		return refused(path, "the user can allow it: banger mcp --allow-path "+path, "%s is outside of the directories that this server may use (%s)", what, or(strings.Join(s.cfg.Paths, ", "), "none"))
	}
	if path == "" {
		return "", banger.Invalidf("path: no path given")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	switch {
	case err != nil && s.inside(abs):
		return "", &banger.Error{Kind: banger.ErrNotFound, Op: "path", Subject: abs, Err: errors.New("there is nothing of that name")}
	case err != nil, !s.inside(real):
		return "", no("the path", abs)
	}
	repo, err := workspace.Inspect(ctx, real)
	if workspace.IsNoRepo(err) {
		return real, nil
	}
	if err != nil {
		return "", err
	}
	for _, part := range []struct{ what, path string }{{"the repository", repo.Root}, {"its .git directory", repo.GitDir}, {"its .git directory", repo.CommonDir}} {
		if real, err := filepath.EvalSymlinks(part.path); err != nil || !s.inside(real) {
			return "", no(part.what, part.path)
		}
	}
	return repo.Root, nil
}

// workspaces refuses a VM whose repositories, one or all, are of places that the agent may not use.
func (c *call) workspaces(ctx context.Context, vm api.VMDetail, guestPath string) error {
	for _, ws := range vm.Workspaces {
		if guestPath != "" && ws.GuestPath != guestPath {
			continue
		}
		if _, err := c.repository(ctx, ws.HostPath); err != nil && !errors.Is(err, banger.ErrNotFound) {
			return err
		}
	}
	return nil
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}
