package cli

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/ext4/check"
	"banger/internal/format"
	"banger/internal/hostcheck"
	"banger/internal/project"
	"banger/internal/twoway"
	"banger/internal/workspace"
)

// Output is the data of a command: what --json writes, --format shows and docs/json.md describes.
type Output struct {
	Of    reflect.Type
	With  string // only with this flag, or with this word behind the VM
	Lines bool   // one value a line, as things happen
}

// Outputs are those of every command that has data, by the command's path: of several, the first that fits holds.
var Outputs = map[string][]Output{
	"vm run":            {{Of: reflect.TypeFor[[]repoPlan](), With: "dry-run"}, {Of: reflect.TypeFor[api.Operation](), With: "detach"}},
	"vm create":         {{Of: reflect.TypeFor[api.Operation](), With: "detach"}, {Of: reflect.TypeFor[api.VMDetail]()}},
	"vm start":          details,
	"vm stop":           details,
	"vm restart":        details,
	"vm kill":           details,
	"vm wait":           details,
	"vm rename":         details,
	"vm delete":         details,
	"vm prune":          {{Of: reflect.TypeFor[[]banger.VM](), With: "dry-run"}, details[0]},
	"vm list":           {{Of: reflect.TypeFor[[]banger.VM]()}},
	"ps":                {{Of: reflect.TypeFor[[]banger.VM]()}},
	"vm show":           {{Of: reflect.TypeFor[api.VMDetail]()}},
	"vm ports":          {{Of: reflect.TypeFor[[]vmPorts]()}},
	"vm cp":             {{Of: reflect.TypeFor[copied]()}},
	"vm net":            {{Of: reflect.TypeFor[banger.NetEvent](), With: "log", Lines: true}, {Of: reflect.TypeFor[[]checkResult](), With: "check"}, {Of: reflect.TypeFor[netShown]()}},
	"vm stats":          {{Of: reflect.TypeFor[api.Stats](), Lines: true}},
	"vm set":            {{Of: reflect.TypeFor[[]api.SetResult]()}},
	"workspace prepare": {{Of: reflect.TypeFor[[]repoPlan](), With: "dry-run"}, {Of: reflect.TypeFor[[]banger.Workspace]()}},
	"workspace status":  {{Of: reflect.TypeFor[workspace.Status]()}},
	"workspace pull":    {{Of: reflect.TypeFor[pulled]()}},
	"workspace push":    {{Of: reflect.TypeFor[workspace.Pushed]()}},
	"workspace watch":   {{Of: reflect.TypeFor[twoway.Event](), Lines: true}},
	"allow":             {{Of: reflect.TypeFor[[]project.Consent](), With: "list"}, {Of: reflect.TypeFor[asked]()}},
	"autosave list":     {{Of: reflect.TypeFor[[]banger.Autosave]()}},
	"autosave restore":  {{Of: reflect.TypeFor[banger.Autosave]()}},
	"autosave prune":    {{Of: reflect.TypeFor[[]banger.Autosave]()}},
	"image list":        {{Of: reflect.TypeFor[[]banger.CatalogImage](), With: "available"}, {Of: reflect.TypeFor[[]banger.Image]()}},
	"image show":        {{Of: reflect.TypeFor[api.ImageDetail]()}},
	"image pull":        imageMade,
	"image import":      imageMade,
	"image build":       imageMade,
	"image register":    imageMade[1:],
	"image promote":     imageMade[1:],
	"image delete":      {{Of: reflect.TypeFor[[]banger.Image]()}},
	"image publish":     {{Of: reflect.TypeFor[banger.Catalog]()}},
	"image prune":       {{Of: reflect.TypeFor[api.Pruned]()}},
	"image cache prune": {{Of: reflect.TypeFor[api.Pruned]()}},
	"kernel list":       {{Of: reflect.TypeFor[[]banger.KernelOffer](), With: "available"}, {Of: reflect.TypeFor[[]banger.Kernel]()}},
	"kernel show":       {{Of: reflect.TypeFor[banger.Kernel]()}},
	"kernel pull":       kernelMade,
	"kernel import":     kernelMade,
	"kernel delete":     {{Of: reflect.TypeFor[[]banger.Kernel]()}},
	"kernel publish":    {{Of: reflect.TypeFor[banger.Catalog]()}},
	"catalog keygen":    {{Of: reflect.TypeFor[keyMade]()}},
	"catalog sign":      {{Of: reflect.TypeFor[banger.Catalog]()}},
	"disk create":       {{Of: reflect.TypeFor[diskMade]()}},
	"disk ls":           {{Of: reflect.TypeFor[[]diskEntry]()}},
	"disk stat":         {{Of: reflect.TypeFor[diskStat]()}},
	"disk cp":           {{Of: reflect.TypeFor[diskCopy]()}},
	"disk write":        {{Of: reflect.TypeFor[diskWritten]()}},
	"disk df":           {{Of: reflect.TypeFor[diskUsage]()}},
	"disk check":        {{Of: reflect.TypeFor[[]check.Fault]()}},
	"ssh-config":        {{Of: reflect.TypeFor[sshConfigState]()}},
	"ops list":          {{Of: reflect.TypeFor[[]api.Operation]()}},
	"ops show":          {{Of: reflect.TypeFor[api.Operation]()}},
	"ops wait":          {{Of: reflect.TypeFor[[]api.Operation]()}},
	"ops cancel":        {{Of: reflect.TypeFor[[]api.Operation]()}},
	"config show":       {{Of: reflect.TypeFor[[]banger.Setting]()}},
	"daemon status":     {{Of: reflect.TypeFor[api.Status]()}},
	"doctor":            {{Of: reflect.TypeFor[hostcheck.Report]()}},
	"version":           {{Of: reflect.TypeFor[versions]()}},
}

var (
	details    = []Output{{Of: reflect.TypeFor[[]api.VMDetail]()}}
	imageMade  = []Output{{Of: reflect.TypeFor[api.Operation](), With: "detach"}, {Of: reflect.TypeFor[banger.Image]()}}
	kernelMade = []Output{{Of: reflect.TypeFor[api.Operation](), With: "detach"}, {Of: reflect.TypeFor[banger.Kernel]()}}
)

// commandName is a command's path without the program's name.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// addFormats gives --format to the commands that have data.
func (a *app) addFormats(cmd *cobra.Command) {
	if Outputs[commandName(cmd)] != nil {
		cmd.Flags().StringVar(&a.format, "format", "", "show the data of --json by a Go `template`: '{{.name}}'; of a list, each element (docs/json.md)")
		_ = cmd.RegisterFlagCompletionFunc("format", completeFormat)
	}
	for _, sub := range cmd.Commands() {
		a.addFormats(sub)
	}
}

// OutputOf is the data of a command line, the program's name left out.
func OutputOf(args []string) (Output, bool) {
	cmd, rest, err := (&app{}).rootCommand().Find(args)
	if err != nil || cmd.ParseFlags(rest) != nil {
		return Output{}, false
	}
	return outputOf(cmd, cmd.Flags().Args())
}

// outputOf is the data that a command has as it was asked for.
func outputOf(cmd *cobra.Command, args []string) (Output, bool) {
	for _, o := range Outputs[commandName(cmd)] {
		flag := cmd.Flags().Lookup(o.With)
		if o.With == "" || flag != nil && flag.Changed || flag == nil && len(args) > 1 && args[1] == o.With {
			return o, true
		}
	}
	return Output{}, false
}

// chooseFormat reads --format. The command does what it does for programs then.
func (a *app) chooseFormat(cmd *cobra.Command, args []string) error {
	if flag := cmd.Flags().Lookup("format"); flag == nil || !flag.Changed {
		return nil
	}
	output, ok := outputOf(cmd, args)
	switch {
	case a.json:
		return banger.Invalidf("--format and --json exclude each other")
	case a.format == "":
		return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("--format: no template given"), Hint: "such as --format '{{.name}}'"}
	case !ok:
		return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--format: %s has no data as it is asked for", cmd.CommandPath()), Hint: "see: docs/json.md"}
	}
	safe := func(text string) string { return text }
	if _, on := terminal(a.Out); on {
		safe = func(text string) string { return escape(text, '\n', '\t') }
	}
	template, err := format.Parse(a.format, output.Of, a.now, safe)
	if err != nil {
		return err
	}
	a.template, a.json = template, true
	return nil
}

// completeFormat completes the field that is being typed.
func completeFormat(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	output, ok := outputOf(cmd, args)
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	before := toComplete
	if i := strings.LastIndex(toComplete, "{{"); i >= 0 {
		before = toComplete[:i]
	}
	var fields []cobra.Completion
	for _, name := range format.Names(output.Of) {
		if field := before + "{{." + name + "}}"; strings.HasPrefix(field, toComplete) {
			fields = append(fields, field)
		}
	}
	return fields, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
