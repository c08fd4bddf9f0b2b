package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"banger"
)

// maxEnvFile bounds an environment file; one line may be as long.
const maxEnvFile = 1 << 20

// environment joins files and flags; the later wins, and flags win over files.
func (f *execFlags) environment(lookup func(string) (string, bool)) (map[string]string, error) {
	env := map[string]string{}
	for _, path := range f.envFile {
		if err := readEnvFile(env, path, lookup); err != nil {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "--env-file", Subject: path, Err: err}
		}
	}
	for _, text := range f.env {
		if err := setEnv(env, text, lookup); err != nil {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "--env", Err: err, Hint: banger.HintOf(err)}
		}
	}
	if len(env) == 0 {
		return nil, nil
	}
	return env, nil
}

func readEnvFile(env map[string]string, path string, lookup func(string) (string, bool)) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err) // the caller names the file
	}
	defer f.Close()
	return parseEnvFile(env, io.LimitReader(f, maxEnvFile+1), lookup)
}

// parseEnvFile reads lines of KEY=VALUE into env. The value is everything after the first "=", as it stands: no quotes, no
// escapes. Empty lines and lines that begin with "#" are skipped; a KEY alone is looked up.
func parseEnvFile(env map[string]string, r io.Reader, lookup func(string) (string, bool)) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxEnvFile)
	size := 0
	for line := 1; scanner.Scan(); line++ {
		if size += len(scanner.Bytes()) + 1; size > maxEnvFile {
			return fmt.Errorf("is larger than %s", banger.FormatSize(maxEnvFile))
		}
		text := strings.TrimLeft(scanner.Text(), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		if err := setEnv(env, text, lookup); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return scanner.Err()
}

func setEnv(env map[string]string, text string, lookup func(string) (string, bool)) error {
	name, value, given := strings.Cut(text, "=")
	if err := banger.ValidateEnv(name, value); err != nil {
		return err
	}
	if !given {
		var ok bool
		if value, ok = lookup(name); !ok {
			return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("%s is not set in this environment", name), Hint: "give a value: " + name + "=value"}
		}
	}
	env[name] = value
	return nil
}
