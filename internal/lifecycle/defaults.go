package lifecycle

import (
	"cmp"
	"context"
	"math/rand/v2"
)

const (
	defaultDiskBytes  = 8 << 30
	maxDefaultMemory  = 8192 // MiB
	minDefaultMemory  = 256
	maxDefaultVCPU    = 4
	defaultShareOfCPU = 4
	defaultShareOfRAM = 8
)

// defaultVCPU is a quarter of the host's, 1 to 4; emulated processors share one thread's worth of speed.
func defaultVCPU(cpus int, accel string) int {
	if accel == "tcg" {
		return 1
	}
	return min(max(cpus/defaultShareOfCPU, 1), maxDefaultVCPU)
}

// defaultMemory is an eighth of the host's, in MiB.
func defaultMemory(hostMiB int) int {
	return min(max(hostMiB/defaultShareOfRAM, minDefaultMemory), maxDefaultMemory)
}

// NewSizes gives the sizes of a VM for which none are asked; where nothing runs VMs, as if KVM did.
func (m *Manager) NewSizes(ctx context.Context) Sizes {
	vmm, err := m.probe(ctx)
	if err != nil {
		m.Log.InfoContext(ctx, "sizes of new VMs", "err", err)
	}
	return m.newSizes(vmm.Accel)
}

func (m *Manager) newSizes(accel string) Sizes {
	own := m.Defaults.New
	return Sizes{VCPU: cmp.Or(own.VCPU, defaultVCPU(m.Defaults.CPUs, accel)), MemoryMiB: cmp.Or(own.MemoryMiB, defaultMemory(m.Defaults.MemoryMiB)),
		DiskBytes: cmp.Or(own.DiskBytes, defaultDiskBytes)}
}

var adjectives = []string{
	"able", "agile", "amber", "apt", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery", "chief", "civil",
	"clear", "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "fair", "fleet", "fond", "frank", "fresh",
	"gentle", "glad", "golden", "grand", "hardy", "hasty", "honest", "humble", "ideal", "jolly", "keen", "kind", "lively", "loyal", "lucid",
	"lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet",
	"rapid", "ready", "rosy", "royal", "sharp", "shiny", "silent", "sincere", "sleek", "smart", "snug", "solid", "spry", "stable", "steady",
	"sturdy", "sunny", "swift", "tidy", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
}

var animals = []string{
	"ant", "badger", "bat", "bear", "beaver", "bee", "bison", "bream", "camel", "cat", "clam", "cobra", "condor", "coyote", "crab", "crane",
	"cricket", "crow", "deer", "dingo", "dolphin", "dove", "duck", "eagle", "eel", "egret", "elk", "falcon", "ferret", "finch", "fox", "frog",
	"gecko", "gibbon", "goat", "goose", "gull", "hare", "hawk", "heron", "ibex", "ibis", "jackal", "jay", "kiwi", "koala", "lark", "lemur",
	"lion", "lizard", "llama", "lynx", "magpie", "marmot", "marten", "mole", "moose", "moth", "mouse", "mule", "newt", "ocelot", "orca", "osprey",
	"otter", "owl", "panda", "parrot", "pelican", "perch", "pike", "pony", "puffin", "quail", "rabbit", "raven", "robin", "salmon", "seal", "shrew",
	"skunk", "sloth", "snail", "sparrow", "squid", "stoat", "stork", "swan", "tapir", "tern", "tiger", "toad", "trout", "turtle", "viper", "vole",
	"walrus", "wasp", "weasel", "whale", "wolf", "wombat", "yak", "zebra",
}

// randomName is an adjective and an animal: "brisk-otter".
func randomName() string {
	return adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))]
}
