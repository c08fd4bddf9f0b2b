package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/catalog"
)

func (a *app) catalogGroup() *cobra.Command {
	return a.group("catalog", "signed collections of ready images and kernels", `
A catalog is a directory with bundles and an index that is signed; any web server can serve it. The configuration names the one
that "image pull" looks in before registries, and the public keys that it must be signed with.`, `
  banger catalog keygen signing.pem                       a key pair; prints the public key
  banger image publish mine --to ./catalog --key signing.pem
  banger catalog sign ./catalog --key signing.pem         a new date of expiry
  banger image list --available                           what the configured catalog has`,
		a.catalogKeygen(), a.catalogSign())
}

// keyMade is a new key pair.
type keyMade struct {
	PublicKey string `json:"public_key"` // for catalog.keys of those who shall trust it
	KeyID     string `json:"key_id"`     // by which a signature names it
	File      string `json:"file"`       // with the private key
}

func (a *app) catalogKeygen() *cobra.Command {
	return &cobra.Command{
		Use: "keygen FILE", Short: "make a key pair to sign catalogs with",
		Long: `FILE gets the private key (PEM, mode 0600): keep it, it can't be had again. The public key is printed; those who shall trust what it
signs add it to catalog.keys in their configuration.`,
		Example: "  banger catalog keygen signing.pem",
		Args:    oneFile("want the file for the private key"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := catalog.GenerateKey(args[0])
			if err != nil {
				return hostError("make key", args[0], err)
			}
			if a.json {
				return a.printJSON(keyMade{PublicKey: catalog.FormatKey(key), KeyID: catalog.KeyID(key), File: args[0]})
			}
			a.notice(`for the configuration of those who trust it: [catalog] keys = ["%s"]`, catalog.FormatKey(key))
			_, err = fmt.Fprintln(a.Out, catalog.FormatKey(key))
			return err
		},
	}
}

func oneFile(text string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return inputError(cmd, "%s", text)
		}
		return nil
	}
}

func (a *app) catalogSign() *cobra.Command {
	var p publishFlags
	var images, kernels []string
	cmd := &cobra.Command{
		Use: "sign [flags] DIR --key FILE", Short: "sign a catalog anew, with a new date of expiry",
		Example: `  banger catalog sign ./catalog --key signing.pem --expires 30d
  banger catalog sign ./catalog --key signing.pem --without-image old     to withdraw it
  banger catalog sign ./catalog --key old.pem --key new.pem     to change keys`,
		Args: oneFile("want the directory of the catalog"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p.to = args[0]
			if err := p.check(cmd); err != nil {
				return err
			}
			index, err := p.publish(catalog.Update{Now: a.now(), WithoutImages: images, WithoutKernels: kernels})
			if err != nil {
				return err
			}
			return a.printPublished(index, nil)
		},
	}
	p.addSigning(cmd)
	cmd.Flags().StringArrayVar(&images, "without-image", nil, "`name` of an image to leave out from now on (repeatable)")
	cmd.Flags().StringArrayVar(&kernels, "without-kernel", nil, "`name` of a kernel to leave out from now on (repeatable)")
	for _, name := range []string{"without-image", "without-kernel"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// listCatalogImages shows the images of the configured catalog.
func (a *app) listCatalogImages(cmd *cobra.Command, c *client.Client) error {
	index, err := c.Catalog(cmd.Context())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(index.Images)
	}
	rows := [][]string{{"NAME", "KEY", "BOOT", "DOWNLOAD", "KERNEL", "DESCRIPTION"}}
	for _, e := range index.Images {
		rows = append(rows, []string{e.Name, e.Key[:min(len(e.Key), 12)], string(e.Boot), banger.FormatSize(e.SizeBytes), e.Kernel, e.Description})
	}
	return a.printRows(rows)
}

// completeCatalogImages offers the images of the configured catalog.
func (a *app) completeCatalogImages(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (names []cobra.Completion) {
		index, _ := c.Catalog(ctx)
		for _, e := range index.Images {
			names = append(names, cobra.CompletionWithDesc(e.Name, escape(e.Description)))
		}
		return names
	})
}

// publishFlags are those of the commands that sign an index.
type publishFlags struct {
	to, url, expires string
	keyFiles         []string

	keys     []ed25519.PrivateKey
	lifetime time.Duration
}

func (p *publishFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.to, "to", "", "`directory` of the catalog (made when it is not there)")
	p.addSigning(cmd)
	cmd.Flags().StringVar(&p.url, "url", "", "`URL` of the directory with the bundles (default: that of the index)")
	_ = cmd.MarkFlagDirname("to")
	_ = cmd.RegisterFlagCompletionFunc("url", cobra.NoFileCompletions)
}

func (p *publishFlags) addSigning(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&p.keyFiles, "key", nil, "`file` with the private key to sign with (repeatable)")
	cmd.Flags().StringVar(&p.expires, "expires", "90d", "`time` until the index expires: 90d, 12h")
	_ = cmd.RegisterFlagCompletionFunc("expires", cobra.NoFileCompletions)
}

// check looks at all flags and reads the keys, and finds out whether the catalog can be followed, before anything happens.
func (p *publishFlags) check(cmd *cobra.Command) (err error) {
	switch {
	case p.to == "":
		return inputError(cmd, "which catalog? --to names its directory")
	case len(p.keyFiles) == 0:
		return inputError(cmd, "--key: no key to sign with; banger catalog keygen makes one")
	}
	if p.lifetime, err = parseLifetime(p.expires); err != nil {
		return err
	}
	if u, err := url.Parse(p.url); p.url != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "") {
		return inputError(cmd, "--url %q: want https://", p.url)
	}
	if p.to, err = filepath.Abs(p.to); err != nil {
		return err
	}
	for _, file := range p.keyFiles {
		key, err := catalog.ReadKey(file)
		if err != nil {
			return hostError("sign with", file, err)
		}
		p.keys = append(p.keys, key)
	}
	return catalog.Check(p.to, p.keys)
}

// parseLifetime reads a duration that may be in days.
func parseLifetime(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
		if n > 36500 {
			d = 0
		}
	}
	if err != nil || d < time.Minute {
		return 0, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--expires %q: want a time of at least a minute", text), Hint: "for example: 90d or 12h"}
	}
	return d, nil
}

// place gives a bundle the URL that readers find it at.
func (p *publishFlags) place(b *banger.Bundle) {
	if p.url != "" {
		b.URL = strings.TrimSuffix(p.url, "/") + "/" + b.URL
	}
}

func (p *publishFlags) publish(update catalog.Update) (banger.Catalog, error) {
	update.Lifetime = p.lifetime
	return catalog.Publish(p.to, p.keys, update)
}

// makeBundles makes the catalog's directory, to be read by all, and lets bundle put what each of refs stands for into it.
func (a *app) makeBundles(cmd *cobra.Command, p *publishFlags, refs []string, bundle func(c *client.Client, ref string, show banger.ProgressFunc) error) error {
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = os.Stat(p.to)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(p.to, 0o755); err != nil {
		return hostError("publish to", p.to, err)
	}
	show, end := a.progress()
	defer end()
	for _, ref := range refs {
		if err := bundle(c, ref, show); err != nil {
			if isNew {
				_ = os.Remove(p.to) // stays when there is something in it
			}
			return err
		}
	}
	return nil
}

// printPublished tells the bundles that were made.
func (a *app) printPublished(index banger.Catalog, made []banger.Bundle) error {
	if a.json {
		return a.printJSON(index)
	}
	for _, b := range made {
		if _, err := fmt.Fprintln(a.Out, escape(b.Name)); err != nil {
			return err
		}
	}
	a.notice("the catalog has serial %d and expires at %s", index.Serial, index.Expires.Local().Format(time.DateTime))
	return nil
}
