package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

// proxyVariables are those that programs of all kinds read, in either case.
var proxyVariables = []string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}

// maxCAFile bounds a file of certificates.
const maxCAFile = 256 << 10

// hostFlags are what a new VM is given of this computer's ways to the network.
type hostFlags struct {
	proxy bool
	ca    []string
}

func (f *hostFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.proxy, "host-proxy", false, "pass on your own http_proxy, https_proxy, no_proxy and the like")
	cmd.Flags().StringArrayVar(&f.ca, "ca", nil, "`file` with certificates (PEM) that programs in the VM trust, too (repeatable)")
}

// apply puts them into the request. What --env gives stands above.
func (f *hostFlags) apply(req *api.CreateRequest, lookup func(string) (string, bool)) error {
	if f.proxy {
		for _, lower := range proxyVariables {
			for _, name := range []string{lower, strings.ToUpper(lower)} {
				value, ok := lookup(name)
				if _, given := req.Env[name]; !ok || given {
					continue
				}
				if req.Env == nil {
					req.Env = map[string]string{}
				}
				req.Env[name] = value
			}
		}
	}
	for _, path := range f.ca {
		text, err := readCA(path)
		if err != nil {
			return &banger.Error{Kind: banger.ErrInvalid, Op: "--ca", Subject: path, Err: err}
		}
		req.CA += strings.TrimRight(text, "\n") + "\n"
	}
	return nil
}

func readCA(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err == nil && len(text) > maxCAFile {
		err = fmt.Errorf("it has more than %s", banger.FormatSize(maxCAFile))
	}
	if err == nil {
		err = banger.ValidateCA(string(text))
	}
	return string(text), err
}
