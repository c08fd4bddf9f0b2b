package twoway

// verdict is what is to be done about a path.
type verdict byte

const (
	agreed   verdict = iota // both sides have the same
	toGuest                 // the host's state goes to the guest
	toHost                  // the guest's state goes to the host
	bothKept                // both have changed: the host's stays, the guest's gets another name
	left                    // one of them can't be kept alike
)

// decide compares the two sides with what they agreed on. revived tells that one side has removed what the other has changed.
func decide(base, host, guest State) (v verdict, revived bool) {
	if host.Kind == Other || guest.Kind == Other {
		return left, false
	}
	h, g := asFile(host), asFile(guest)
	switch {
	case h == g:
		return agreed, false
	case h == base:
		return toHost, false
	case g == base:
		return toGuest, false
	case h.Kind == None:
		return toHost, true
	case g.Kind == None:
		return toGuest, true
	}
	return bothKept, false
}

// asFile takes a directory for no file.
func asFile(s State) State {
	if s.Kind == Dir {
		return State{}
	}
	return s
}

// seeded gives what both sides had when a file was sent into the guest, as far as one of them still has it.
func seeded(sent Sent, host, guest Found) State {
	for _, f := range []Found{host, guest} {
		if f.Blob != "" && f.Blob == sent.Blob && (f.Kind == Link) == sent.Link {
			f.State.Exec = sent.Exec
			return f.State
		}
	}
	return State{}
}

// Sent is a file that went into the guest before.
type Sent struct {
	Blob string // SHA-1 of its content as a blob of git
	Exec bool
	Link bool
}
