package banger

// Setting is one value of the configuration, as people see it, and where it comes from.
type Setting struct {
	Key   string `json:"key"` // "vm_defaults.memory"
	Value string `json:"value"`
	From  string `json:"from"` // path of the file, "$VARIABLE", "this computer" or "built in"
}
