package banger

// Setting is one value of the configuration, as people see it, and where it comes from.
type Setting struct {
	Key   string `json:"key"`   // "vm_defaults.memory"
	Value string `json:"value"` // as the file may say it, lists with commas between; a password in a URL is "xxxxx"
	From  string `json:"from"`  // path of the file, "$VARIABLE", "this computer" or "built in"
}
